//! Orders: point-of-sale orders with all that belongs to them (docs/original/rest.md#orders), as a
//! stored procedure: whether an order can be saved, its number and its logs depend on what is
//! stored.
//!
//! Only a call of the procedure `orders` is in the log; `save` is what it does on every
//! replica, `list` answers its lookups.

mod list;
mod logs;
mod parts;
mod save;

use model::codec::{self, CodecError};
use model::{
    Hash, Object, Procedure, ProcedureCall, ProcedureContext, ProcedureView, Read, Reject, Request,
    Timestamp,
};
use serde::{Deserialize, Serialize};

/// The procedure's name in the log.
const PROCEDURE: &str = "orders";

/// The orders themselves.
const HEADER: &str = "order_header";
const LINE: &str = "order_line";
const PAYMENT: &str = "order_payment";
const STATUS_LOG: &str = "order_status_log";
const LINE_STATUS_LOG: &str = "order_line_status_log";
/// The field of a part that says of which order it is.
const ORDER: &str = "orderId";
/// The field that says which line a log is of.
const OF_LINE: &str = "orderLineId";

/// A point-of-sale order and its parts, in the schema's names. Saved as one.
///
/// A list of parts that is `None` was not sent: the stored parts stay. One that is there, even
/// empty, replaces them: stored parts of the order that it does not name are deleted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SaveOrder {
    /// `order_header`. Without an `id`, or with one that begins `draft-`, it gets a number.
    pub header: Object,
    /// `order_line`; each gets the header's id as `orderId`. A new order must have some.
    pub lines: Option<Vec<Object>>,
    /// `order_payment`, likewise.
    pub payments: Option<Vec<Object>>,
    /// `order_status_log`, likewise; one is added where none is sent and the state changed.
    pub status_logs: Option<Vec<Object>>,
    /// `order_line_status_log` of each line, at the line's place in `lines`; shorter where the
    /// last lines have none. Each gets the line's id as `orderLineId`.
    pub line_status_logs: Vec<Option<Vec<Object>>>,
    /// Who did it, for the logs that are added.
    pub actor: Option<String>,
}

impl SaveOrder {
    /// The request that saves it.
    pub fn request(&self) -> Request {
        Request::Call(call(codec::encode(self)))
    }
}

/// Which orders, and what of them. All words are compared as
/// [`Operator::Like`](model::Operator::Like) compares letters; an empty list lets every order pass.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OrdersQuery {
    /// Only this one.
    pub id: Option<String>,
    /// Leave out orders that are closed, cancelled and so on.
    pub only_active: bool,
    /// Only these states.
    pub statuses: Vec<String>,
    /// Only these stages.
    pub stages: Vec<String>,
    /// Only these types.
    pub types: Vec<String>,
    /// Only of these shifts.
    pub shifts: Vec<String>,
    /// Only those updated at this time or later.
    pub updated_from: Option<Timestamp>,
    /// Only those saved at this time or later.
    pub saved_from: Option<Timestamp>,
    /// At most this many, the newest.
    pub limit: Option<usize>,
    /// With their `lines`.
    pub lines: bool,
    /// With their `payments`.
    pub payments: bool,
    /// With their `statusLogs`.
    pub status_logs: bool,
    /// Each line with its `statusLogs`.
    pub line_status_logs: bool,
}

impl OrdersQuery {
    /// The lookup of these orders; [`Orders::decode`] reads its answer.
    pub fn read(&self) -> Read {
        Read::Call(call(codec::encode(self)))
    }
}

/// Orders, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Orders {
    /// Headers with the parts asked for.
    pub orders: Vec<Object>,
    /// How many there are without the limit.
    pub total: usize,
}

impl Orders {
    /// Reads the answer to [`OrdersQuery::read`].
    ///
    /// # Errors
    /// [`CodecError`]: what the bytes are instead.
    pub fn decode(answer: &[u8]) -> Result<Self, CodecError> {
        codec::decode(answer)
    }
}

model::versioned!(
    SaveOrder => ProcedureArguments,
    OrdersQuery => ProcedureArguments,
    Orders => ProcedureAnswer,
);

fn call(arguments: Vec<u8>) -> ProcedureCall {
    ProcedureCall { procedure: PROCEDURE.to_owned(), arguments }
}

/// The procedure that saves and lists orders.
#[derive(Debug)]
pub(crate) struct OrdersProcedure;

impl Procedure for OrdersProcedure {
    fn name(&self) -> &'static str {
        PROCEDURE
    }

    fn run(&self, context: &mut ProcedureContext<'_, '_>, arguments: &[u8]) -> Result<(), Reject> {
        save::save_order(context, &codec::decode(arguments)?)
    }

    fn read(&self, view: &ProcedureView<'_>, arguments: &[u8]) -> Result<Vec<u8>, Reject> {
        Ok(codec::encode(&list::orders(view, &codec::decode(arguments)?)?))
    }

    fn meaning(&self, arguments: &[u8]) -> Hash {
        // A till that writes its order anew may spell numbers otherwise and change the order of
        // members: it is the same order.
        match codec::decode::<SaveOrder>(arguments) {
            Ok(order) => model::canonical_hash(&order),
            Err(_) => model::canonical_hash(&arguments),
        }
    }
}

#[cfg(test)]
mod tests;
