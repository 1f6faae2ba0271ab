//! What is read of a small directory, and, where `MISHKAH_ORIGINAL_DATA` names it, of the real one.

use std::path::Path;
use std::sync::Arc;

use model::{Entropy, FieldType, InsertContext, Object, Request, Timestamp, Validation};

use super::*;
use crate::testing::{Shop, object};

const SCHEMA: &str = r#"{"schema":{"tables":[
    {"name":"b","fields":[{"name":"id","type":"text","primaryKey":true}]},
    {"name":"a","fields":[{"name":"id","type":"text","primaryKey":true}]}]}}"#;

fn files(list: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    list.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
}

fn small() -> BTreeMap<String, Vec<u8>> {
    files(&[
        (
            "modules.json",
            r#"{"modules":{
            "pos":{"label":"POS","schemaFallbackPath":"data/schemas/pos.json",
                   "seedFallbackPath":"data/seeds/pos.json","tables":["a","ghost"]},
            "gym":{"label":"Gym"},
            "pad":{"schemaFallbackPath":"data/schemas/gone.json"}}}"#,
        ),
        ("schemas/pos.json", SCHEMA),
        ("seeds/pos.json", r#"{"version":1,"tables":{"a":[{"id":"1"}]}}"#),
        (
            "branches.config.json",
            r#"{"branches":{"dar":{"label":"دار","modules":["pos","gym"]}},
            "patterns":[{"match":"^lab:","modules":["pad"]}],"defaults":["pos"]}"#,
        ),
        ("branches/dar/modules/pos/seeds/initial.json", r#"{"tables":{"b":{"id":"2"}}}"#),
        ("branches/lab%3Ax/modules/pos/seeds/initial.json", r#"{"tables":{}}"#),
        ("branches/clinic/modules/erp/schema/definition.json", SCHEMA),
        ("branches/quiet/modules/pos/history/old.json", "not even JSON"),
        ("sequence-rules.json", r#"{"defaults":{"pos":{"a":{"id":{"prefix":"A"}}}}}"#),
    ])
}

fn id(name: &str) -> ModuleId {
    ModuleId::parse(name).unwrap()
}

#[test]
fn a_directory_is_read_and_what_is_left_out_is_noted() {
    let original = Original::read(&small()).unwrap();
    let modules: Vec<_> = original.modules.iter().map(|module| module.id.as_str()).collect();
    assert_eq!(modules, ["pos", "erp"]);
    let pos = original.module(&id("pos")).unwrap();
    assert_eq!(pos.tables.iter().map(TableName::as_str).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(pos.seed().unwrap().tables.len(), 1);
    assert_eq!(pos.schema_source.to_json(), Value::from_json(SCHEMA.as_bytes()).unwrap().to_json());
    let branches: Vec<_> = original
        .branches
        .iter()
        .map(|b| (b.id.as_str(), b.modules.iter().map(ModuleId::as_str).collect::<Vec<_>>()))
        .collect();
    assert_eq!(
        branches,
        [("dar", vec!["pos", "gym"]), ("clinic", vec!["erp"]), ("lab:x", vec!["pos"]),]
    );
    assert_eq!(original.branches[0].seeds[&id("pos")].tables.len(), 1);
    assert_eq!(original.patterns, [("^lab:".to_owned(), vec![id("pad")])]);
    assert_eq!(original.defaults, [id("pos")]);
    assert_eq!(original.sequences.defaults.len(), 1);
    assert_eq!(
        original.notes,
        [
            "table \"ghost\" of module \"pos\" is listed in modules.json but not defined in \
             schemas/pos.json: it is left out",
            "module \"gym\" has no central schema (it names no schemaFallbackPath): it is left out",
            "module \"pad\" has no central schema (its schema schemas/gone.json is not there): \
             it is left out",
            "module \"erp\" is not in modules.json: it is added with the definition \
             branches/clinic/modules/erp/schema/definition.json",
            "branch \"dar\" has module \"gym\", which is not loaded: it is absent there",
            "branch \"clinic\" is not in branches.config.json: it is added for \
             branches/clinic/modules/erp",
            "branch \"lab:x\" is not in branches.config.json: it is added for \
             branches/lab%3Ax/modules/pos",
        ]
    );
}

#[test]
fn a_module_without_a_schema_takes_a_branchs_definition() {
    let mut small = small();
    small.insert("branches/dar/modules/gym/schema/definition.json".into(), SCHEMA.into());
    let original = Original::read(&small).unwrap();
    let gym = original.module(&id("gym")).unwrap();
    assert_eq!((gym.label.as_str(), gym.tables.len()), ("Gym", 2));
    assert!(
        original.notes[1]
            .ends_with("it takes the definition branches/dar/modules/gym/schema/definition.json")
    );
}

#[test]
fn what_cannot_be_read_names_file_and_place() {
    for (path, text, error) in [
        (
            "modules.json",
            "{",
            "modules.json: no JSON: EOF while parsing an object at line 1 column 1",
        ),
        (
            "modules.json",
            r#"{"modules":{"Pos":{}}}"#,
            "modules.json: modules.Pos: module id \"Pos\" is not allowed: 1 to 63 characters out \
             of a-z, 0-9, '_' and '-'",
        ),
        (
            "schemas/pos.json",
            r#"{"schema":{"tables":[{"name":"a","fields":[]}]}}"#,
            "schemas/pos.json: definition of module \"pos\", table \"a\": it has no fields; give it \
             \"fields\" or \"columns\"",
        ),
        (
            "branches.config.json",
            r#"{"branches":{"dar":{"modules":"pos"}}}"#,
            "branches.config.json: branches.dar.modules is \"pos\"; it is a list of names",
        ),
        (
            "branches.config.json",
            r#"{"patterns":[{"match":"("}]}"#,
            "branches.config.json: patterns[0].match \"(\" cannot be read",
        ),
        (
            "branches/dar/modules/pos/seeds/initial.json",
            "[]",
            "branches/dar/modules/pos/seeds/initial.json: it has no \"tables\"",
        ),
        (
            "sequence-rules.json",
            r#"{"defaults":{"pos":{"a":{"id":{"increment":0}}}}}"#,
            "sequence-rules.json: sequence rule defaults.pos.a.id: increment is 0",
        ),
    ] {
        let mut small = small();
        small.insert(path.to_owned(), text.into());
        let found = Original::read(&small).unwrap_err().to_string();
        assert!(found.starts_with(error), "{found}");
    }
    let nothing = Original::read(&BTreeMap::new()).unwrap_err().to_string();
    assert_eq!(nothing, "modules.json: it is missing: this is no data of the original");
}

/// The real directory's files; `None`, said plainly, where the environment does not name it.
#[expect(clippy::disallowed_methods, reason = "only tests look at the environment and the disk")]
fn real() -> Option<BTreeMap<String, Vec<u8>>> {
    let Ok(root) = std::env::var("MISHKAH_ORIGINAL_DATA") else {
        println!("skipped: MISHKAH_ORIGINAL_DATA does not name a data directory of the original");
        return None;
    };
    let mut files = BTreeMap::new();
    collect(Path::new(&root), Path::new(&root), &mut files);
    Some(files)
}

fn collect(root: &Path, directory: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            files.insert(name, std::fs::read(&path).unwrap());
        }
    }
}

#[test]
fn the_real_directory_is_read() {
    let Some(files) = real() else { return };
    let paths: Vec<String> = files.keys().cloned().collect();
    assert_eq!(live_data(&paths), Vec::<String>::new());
    let original = Original::read(&files).unwrap();
    let modules: Vec<_> = original.modules.iter().map(|module| module.id.as_str()).collect();
    assert_eq!(modules, ["pos", "erp"]);
    let branches: Vec<_> = original.branches.iter().map(|branch| branch.id.as_str()).collect();
    assert_eq!(branches, ["dar", "remal", "gim", "clinic-main"]);
    assert_eq!(original.patterns.len(), 3);
    assert_eq!(original.defaults, [id("pos")]);
    let schemas: Vec<_> = original.schemas.keys().map(String::as_str).collect();
    assert_eq!(schemas, ["branch/clinic-main/erp", "global/pos_schema"]);
    assert_eq!(original.schemas["global/pos_schema"], original.modules[0].schema_source);
    assert!(original.notes.iter().any(|note| note.contains("\"gym\" has no central schema")));
    assert!(original.notes.iter().any(|note| note.contains("\"scratchpad\" has no central")));
    let dar = BranchId::parse("dar").unwrap();
    let rules = original.sequences.rules_for(&dar, &id("pos"));
    assert_eq!(rules["order_header"]["id"].render(1020), "DAR-001020");
}

#[test]
fn the_real_pos_schema_has_its_tables_in_the_order_clients_know() {
    let Some(files) = real() else { return };
    let original = Original::read(&files).unwrap();
    let pos = &original.module(&id("pos")).unwrap().schema;
    assert_eq!(pos.tables.len(), 45, "46 entries, one of them twice");
    // 417 fields are written, five of them in the entry of pos_database that a later one replaces.
    assert_eq!(pos.tables.iter().map(|table| table.fields.len()).sum::<usize>(), 412);
    let names: Vec<_> = pos.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(&names[..3], ["pos_database", "pos_terminal", "employees"]);
    assert_eq!(&names[42..], ["audit_events", "expo_pass_ticket", "pos_terminals"]);
    let database = pos.table("pos_database").unwrap();
    let fields: Vec<_> = database.fields.iter().map(|field| &*field.name).collect();
    assert_eq!(fields, ["branchId", "createdAt", "id", "payload", "updatedAt"], "the later entry");
    let versioned: Vec<_> = pos.tables.iter().filter(|t| t.versioned).collect();
    assert_eq!(versioned.len(), 2);
    let shift = pos.table("order_header").unwrap().field("shift_id").unwrap();
    let target = shift.references.as_ref().unwrap();
    assert_eq!((target.table.as_str(), target.field.as_str()), ("pos_shift", "id"));
    assert_eq!(pos.check_strict(), Ok(()));
    assert_eq!(model::codec::decode::<Schema>(&model::codec::encode(pos)).unwrap(), *pos);
}

#[test]
fn the_real_clinic_schema_loads() {
    let Some(files) = real() else { return };
    let original = Original::read(&files).unwrap();
    let erp = &original.module(&id("erp")).unwrap().schema;
    assert_eq!(erp.tables.len(), 42);
    assert_eq!(erp.tables.iter().map(|table| table.fields.len()).sum::<usize>(), 439);
    let companies = erp.table("Companies").unwrap();
    assert_eq!(&*companies.key[0], "ID");
    assert_eq!(companies.field("Company_Name").unwrap().max_length, Some(200));
    assert_eq!(companies.field("Active").unwrap().kind, FieldType::Boolean);
    let references = erp.tables.iter().flat_map(|t| &t.fields).filter(|f| f.references.is_some());
    assert_eq!(references.count(), 108);
    assert_eq!(erp.check_strict(), Ok(()));
}

/// The tables with rows that the original's own server showed after seeding (`ws-01-session`).
const DAR_ROWS: [(&str, usize); 16] = [
    ("pos_database", 1),
    ("employees", 5),
    ("order_types", 3),
    ("order_statuses", 4),
    ("order_stages", 7),
    ("order_payment_state", 3),
    ("order_line_statuses", 5),
    ("payment_methods", 4),
    ("kitchen_sections", 4),
    ("menu_categories", 9),
    ("category_sections", 9),
    ("menu_items", 94),
    ("dining_tables", 30),
    ("reservations", 3),
    ("delivery_drivers", 3),
    ("audit_events", 1),
];

#[test]
fn the_real_seeds_fill_the_tables_the_original_fills() {
    let Some(files) = real() else { return };
    let original = Original::read(&files).unwrap();
    let pos = &original.module(&id("pos")).unwrap().schema;
    let rows = |branch: usize| pos.seed_rows(&original.branches[branch].seeds[&id("pos")]);
    let counts: Vec<_> = rows(0).iter().map(|(t, rows)| (t.name.as_str(), rows.len())).collect();
    assert_eq!(counts, DAR_ROWS);
    assert_eq!(counts.iter().map(|(_, rows)| rows).sum::<usize>(), 185);
    assert_eq!(rows(1).iter().map(|(_, rows)| rows.len()).sum::<usize>(), 208);
    let items = rows(1).into_iter().find(|(table, _)| table.name.as_str() == "menu_items");
    assert_eq!(items.unwrap().1.len(), 108);
}

#[test]
fn a_real_seed_row_becomes_the_record_the_original_shows() {
    let Some(files) = real() else { return };
    let original = Original::read(&files).unwrap();
    let pos = &original.module(&id("pos")).unwrap().schema;
    let rows = pos.seed_rows(&original.branches[0].seeds[&id("pos")]);
    let mut entropy = Entropy::new([0; 16], 0);
    let mut ctx = InsertContext {
        validation: Validation::Lenient,
        branch: &original.branches[0].id,
        client: None,
        at: Timestamp(0),
        entropy: &mut entropy,
    };
    let mut seeded = |name: &str| -> Object {
        let (table, rows) = rows.iter().find(|(table, _)| table.name.as_str() == name).unwrap();
        table.project_seed(rows[0], &mut ctx).unwrap()
    };
    assert_eq!(
        Value::from(seeded("audit_events")).to_json(),
        r#"{"action":"table.state","id":"audit-001","meta":{"state":"disactive"},"occurredAt":"1970-01-01T00:00:00.000Z","refId":"T19","refType":"table","userId":"a1b2c3d4","at":"2024-02-15T10:00:00Z"}"#
    );
    assert_eq!(
        Value::from(seeded("order_types")).to_json(),
        r#"{"allowsFinalizeLater":true,"allowsLineAdditions":true,"allowsReturns":true,"allowsSave":true,"id":"dine_in","nameAr":"","nameEn":"","sequence":0,"workflow":"multi-step","type_name":{"en":"Dine-in","ar":"صالة"},"description":{"en":"Table service orders managed inside the restaurant.","ar":"طلبات الصالة التي تُدار داخل المطعم."},"allows_save":true,"allows_finalize_later":true,"allows_line_additions":true,"allows_returns":true}"#
    );
    let database = seeded("pos_database");
    let names: Vec<_> = database.iter().map(|(name, _)| &**name).collect();
    assert_eq!(
        names,
        [
            "branchId",
            "createdAt",
            "id",
            "payload",
            "updatedAt",
            "orders",
            "shifts",
            "orderLines",
            "orderNotes",
            "orderStatusLogs",
            "posMeta",
            "syncLog"
        ]
    );
    assert!(database.get("id").unwrap().as_str().unwrap().starts_with("id-"));
}

#[test]
fn real_inserts_become_the_records_the_original_answers() {
    let Some(files) = real() else { return };
    let original = Original::read(&files).unwrap();
    let pos = &original.module(&id("pos")).unwrap().schema;
    let inserted = |table: &str, sent: &str| {
        let mut entropy = Entropy::new([0; 16], 0);
        let mut ctx = InsertContext {
            validation: Validation::Lenient,
            branch: &original.branches[0].id,
            client: None,
            at: Timestamp(0),
            entropy: &mut entropy,
        };
        let sent = Value::from_json(sent.as_bytes()).unwrap();
        let table = pos.resolve(table).unwrap();
        Value::from(table.project_insert(sent.as_object().unwrap(), &mut ctx).unwrap()).to_json()
    };
    // Bodies and answers of the recordings rest-01 and rest-07, with the time and the version,
    // which is the branch's, taken out.
    for (table, sent, record) in [
        (
            "orders",
            r#"{"id":"h-json","notes":"not-json","metadata":"{\"a\":1}","guests":"","closedAt":null,"openedAt":"garbage"}"#,
            r#"{"id":"h-json","shiftId":"","posId":"","posNumber":0,"orderTypeId":"","statusId":"","stageId":"","paymentStateId":"","tableId":null,"customerId":null,"customerAddressId":null,"driverId":null,"openedBy":"","closedBy":null,"openedAt":"garbage","closedAt":"NOW","guests":1,"notes":{},"subtotal":0,"discount":0,"service":0,"tax":0,"deliveryFee":0,"totalDue":0,"totalPaid":0,"metadata":{"a":1}}"#,
        ),
        (
            "order_payment",
            r#"{"id":"pay-nan","orderId":"o","amount":"abc"}"#,
            r#"{"amount":null,"capturedAt":"NOW","id":"pay-nan","orderId":"o","paymentMethodId":"","reference":null,"shiftId":""}"#,
        ),
        (
            "payments",
            r#"{"payment_id":"snake-1","order_id":{"id":"o1","name":"n"},"shift_id":"s9"}"#,
            r#"{"amount":0,"capturedAt":"NOW","id":"snake-1","orderId":"o1","paymentMethodId":"","reference":null,"shiftId":"s9"}"#,
        ),
        (
            "menu_items",
            r#"{"id":"mi-1","isActive":"","nameAr":null,"basePrice":"7.5"}"#,
            r#"{"id":"mi-1","sku":null,"categoryId":"","kitchenSectionId":"","nameAr":"","nameEn":"","descriptionAr":null,"descriptionEn":null,"basePrice":7.5,"taxGroupId":null,"isCombo":false,"isActive":true,"favoriteRank":null,"createdAt":"NOW","updatedAt":"NOW"}"#,
        ),
        (
            "table_lock",
            r#"{"id":"tl-rest","tableId":"T9"}"#,
            r#"{"expiresAt":"NOW","id":"tl-rest","lockedAt":"NOW","lockedBy":null,"reason":null,"tableId":"T9","orderId":null,"reservationId":null,"active":true,"source":"pos","version":1}"#,
        ),
    ] {
        let found = inserted(table, sent).replace("1970-01-01T00:00:00.000Z", "NOW");
        assert_eq!(found, record, "{table}");
    }
}

/// A shop on the real schema, rules and seed of `dar`, where 26 numbers were taken.
fn dar(original: &Original) -> Shop {
    let mut shop = Shop::lenient();
    let branch = BranchId::parse("dar").unwrap();
    shop.redefine(|definition| {
        definition.schema = Arc::new(original.module(&id("pos")).unwrap().schema.clone());
        definition.sequences = original.sequences.rules_for(&branch, &id("pos"));
    })
    .unwrap();
    shop.run(Request::Seed(Arc::new(original.branches[0].seeds[&id("pos")].clone()))).unwrap();
    (0..26).for_each(|_| drop(shop.reserve("order_header", "id").unwrap()));
    shop
}

#[test]
fn a_real_order_is_stored_with_what_the_original_lost() {
    let Some(files) = real() else { return };
    let original = Original::read(&files).unwrap();
    let mut shop = dar(&original);
    let order = crate::SaveOrder {
        header: object(r#"{"id":"draft-1","shiftId":"sh-1","guests":0}"#),
        lines: Some(vec![object(
            r#"{"id":"ol-1","itemId":"burger","quantity":2,"unitPrice":50,"total":100,"notes":[]}"#,
        )]),
        payments: Some(vec![object(r#"{"id":"pp-1","paymentMethodId":"cash","amount":100}"#)]),
        ..crate::SaveOrder::default()
    };
    shop.run(order.request()).unwrap();
    let (iso, ms) = (shop.now.to_iso(), shop.now.0);
    // The recording rest-04, the times and what the till's gateway adds taken out; quantity and
    // price, which the original lost, are kept; a new line is open, as its till means.
    let stored = [
        (
            "order_header",
            r#"{"id":"DAR-001027","shiftId":"sh-1","posId":"","posNumber":0,"orderTypeId":"","statusId":"","stageId":"","paymentStateId":"","tableId":null,"customerId":null,"customerAddressId":null,"driverId":null,"openedBy":"","closedBy":null,"openedAt":"ISO","closedAt":"ISO","guests":0,"notes":[],"subtotal":0,"discount":0,"service":0,"tax":0,"deliveryFee":0,"totalDue":0,"totalPaid":0,"metadata":{"invoiceSequence":1027,"sequenceRule":{"prefix":"DAR","start":1001,"padding":6,"counterField":"invoiceSequence"}},"version":1}"#,
        ),
        (
            "order_line",
            r#"{"id":"ol-1","itemId":"burger","kitchenSectionId":null,"metadata":{},"notes":[],"orderId":"DAR-001027","parentLineId":null,"quantity":2,"statusId":"open","total":100,"unitPrice":50,"version":1}"#,
        ),
        (
            "order_payment",
            r#"{"amount":100,"capturedAt":"ISO","id":"pp-1","orderId":"DAR-001027","paymentMethodId":"cash","reference":null,"shiftId":"sh-1"}"#,
        ),
        (
            "order_status_log",
            r#"{"actorId":"pos","changedAt":MS,"id":"DAR-001027::status::MS","metadata":{},"orderId":"DAR-001027","paymentStateId":null,"reason":null,"source":null,"stageId":null,"statusId":""}"#,
        ),
    ];
    for (table, record) in stored {
        let expected = record.replace("ISO", &iso).replace("MS", &ms.to_string());
        assert_eq!(shop.rows(table), [expected], "{table}");
    }
}

#[test]
fn a_real_day_is_purged_and_begun_again() {
    let Some(files) = real() else { return };
    let original = Original::read(&files).unwrap();
    let mut shop = dar(&original);
    shop.insert("table_lock", r#"{"id":"from-snap","tableId":"Q"}"#).unwrap();
    let purge = model::Purge {
        tables: ["payments", "table_lock", "zzz"].map(str::to_owned).to_vec(),
        reason: "purge-live-data".to_owned(),
        requested_by: None,
        reset_events: true,
    };
    let event = shop.operation(Request::Purge(purge)).unwrap().unwrap();
    assert_eq!(
        crate::testing::module_change(&event).details.get("tables").unwrap().to_json(),
        r#"[{"table":"order_payment","status":"empty","removed":0},{"table":"table_lock","status":"cleared","removed":1},{"table":"zzz","status":"skipped","reason":"table-not-registered"}]"#
    );
    let order = shop.insert("order_header", r#"{"shiftId":"s"}"#).unwrap();
    assert_eq!(order.record().unwrap().key.as_str(), "DAR-001027");
    let reset = model::Reset {
        seed: Some(Arc::new(original.branches[0].seeds[&id("pos")].clone())),
        reason: "branch-api-reset".to_owned(),
        requested_by: None,
        numbers: true,
    };
    shop.operation(Request::Reset(reset)).unwrap().unwrap();
    let head = shop.branch().head();
    assert_eq!((head.rows, head.revision.0), (185, 1));
    let order = shop.insert("order_header", r#"{"shiftId":"s"}"#).unwrap();
    assert_eq!((order.record().unwrap().key.as_str(), order.revision.0), ("DAR-001001", 2));
}
