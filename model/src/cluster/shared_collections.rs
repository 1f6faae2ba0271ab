//! Shared collections: what the catalogue is made of. A copy costs nothing, a change O(log n), and
//! each knows how many bytes it holds: every change of the catalogue is published as a copy, and
//! every kind of what it holds is bounded in bytes.
//!
//! Promise: they are written as the plain lists and maps they stand for, so that bytes on disk say
//! nothing of how they are held.

use std::borrow::Borrow;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet, Vector};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec;
use crate::ids::ModuleId;

/// Something the catalogue lists under an id.
pub trait Item: Serialize {
    /// What it is found by.
    type Id: Ord + Clone;

    /// Its id.
    fn id(&self) -> &Self::Id;

    /// How many of its bytes, as they are encoded, are rows to begin with.
    fn seed_bytes(&self) -> u64;

    /// The modules it names, by each of which it is found as well.
    fn modules(&self) -> &[ModuleId] {
        &[]
    }
}

/// How many bytes an item has, as it is encoded: found once, for an item may be megabytes.
#[derive(Debug, Clone, Copy)]
struct ItemSize {
    /// Without rows to begin with.
    bytes: u64,
    /// Of these.
    seed_bytes: u64,
}

impl ItemSize {
    fn of<T: Item>(item: &T) -> Self {
        let seed_bytes = item.seed_bytes();
        Self { bytes: codec::encoded_len(item).saturating_sub(seed_bytes), seed_bytes }
    }
}

/// Items in the order they were added, each found by its id.
#[derive(Debug, Clone)]
pub struct SharedList<T: Item> {
    items: Vector<(Arc<T>, ItemSize)>,
    places: OrdMap<T::Id, usize>,
    by_module: OrdMap<ModuleId, OrdSet<T::Id>>,
    bytes: u64,
    seed_bytes: u64,
}

impl<T: Item> Default for SharedList<T> {
    fn default() -> Self {
        Self {
            items: Vector::new(),
            places: OrdMap::new(),
            by_module: OrdMap::new(),
            bytes: 0,
            seed_bytes: 0,
        }
    }
}

impl<T: Item> SharedList<T> {
    /// The item of this id.
    pub fn get(&self, id: &T::Id) -> Option<&Arc<T>> {
        self.items.get(*self.places.get(id)?).map(|(item, _)| item)
    }

    /// Replaces the item of the same id in its place, or adds it at the end.
    pub fn put(&mut self, item: Arc<T>) {
        let size = ItemSize::of(&*item);
        self.bytes += size.bytes;
        self.seed_bytes += size.seed_bytes;
        let counted = (Arc::clone(&item), size);
        match self.places.get(item.id()).copied() {
            Some(place) => {
                let (old, size) = self.items.set(place, counted);
                self.bytes -= size.bytes;
                self.seed_bytes -= size.seed_bytes;
                self.forget_modules(&old);
            }
            None => {
                self.places.insert(item.id().clone(), self.items.len());
                self.items.push_back(counted);
            }
        }
        for module in item.modules() {
            match self.by_module.get_mut(module) {
                Some(ids) => _ = ids.insert(item.id().clone()),
                None => _ = self.by_module.insert(module.clone(), OrdSet::unit(item.id().clone())),
            }
        }
    }

    fn forget_modules(&mut self, item: &T) {
        for module in item.modules() {
            let Some(ids) = self.by_module.get_mut(module) else { continue };
            ids.remove(item.id());
            if ids.is_empty() {
                self.by_module.remove(module);
            }
        }
    }

    /// The ids of those that name a module, in order. O(those).
    pub fn of_module(&self, module: &ModuleId) -> impl Iterator<Item = &T::Id> {
        self.by_module.get(module).into_iter().flatten()
    }

    /// All, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.items.iter().map(|(item, _)| item)
    }

    /// The one added first.
    pub fn first(&self) -> Option<&Arc<T>> {
        self.items.front().map(|(item, _)| item)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Keeps those for which this holds: for tests, whose catalogues are made by hand.
    pub fn retain(&mut self, keeps: impl Fn(&Arc<T>) -> bool) {
        *self = self.iter().filter(|item| keeps(item)).cloned().collect();
    }

    /// Their bytes, as they are encoded, without rows to begin with. O(1).
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes of their rows to begin with, as they are encoded. O(1).
    pub fn seed_bytes(&self) -> u64 {
        self.seed_bytes
    }
}

#[cfg(test)]
impl<T: Item> SharedList<T> {
    /// How many of its entries are not shared with an earlier copy, places included.
    pub(super) fn copied_from(&self, before: &Self) -> usize {
        let places = |listed: &Self| -> std::collections::BTreeSet<usize> {
            let items = listed.items.iter().map(|item| std::ptr::from_ref(item) as usize);
            let ids = listed.places.keys().map(|id| std::ptr::from_ref(id) as usize);
            items.chain(ids).collect()
        };
        places(self).difference(&places(before)).count()
    }
}

impl<T: Item + PartialEq> PartialEq for SharedList<T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<T: Item> FromIterator<Arc<T>> for SharedList<T> {
    fn from_iter<I: IntoIterator<Item = Arc<T>>>(items: I) -> Self {
        let mut listed = Self::default();
        items.into_iter().for_each(|item| listed.put(item));
        listed
    }
}

impl<T: Item> Serialize for SharedList<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter())
    }
}

impl<'de, T: Item + Deserialize<'de>> Deserialize<'de> for SharedList<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Vec::<Arc<T>>::deserialize(from)?.into_iter().collect())
    }
}

/// Values by their names, in the names' order.
#[derive(Debug, Clone)]
pub struct SharedMap<K: Ord, V> {
    /// Each value with the bytes of it and its name, as they are encoded: found once.
    entries: OrdMap<K, (V, u64)>,
    bytes: u64,
}

impl<K: Ord, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { entries: OrdMap::new(), bytes: 0 }
    }
}

impl<K: Ord + Clone + Serialize, V: Clone + Serialize> SharedMap<K, V> {
    /// The value of this name.
    pub fn get<Q: Ord + ?Sized>(&self, name: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(name).map(|(value, _)| value)
    }

    /// Whether there is a value of this name.
    pub fn contains_key<Q: Ord + ?Sized>(&self, name: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.entries.contains_key(name)
    }

    /// Puts a value under a name; the one it had, if it had one.
    pub fn insert(&mut self, name: K, value: V) -> Option<V> {
        let bytes = codec::encoded_len(&name) + codec::encoded_len(&value);
        let old = self.remove(&name);
        self.entries.insert(name, (value, bytes));
        self.bytes += bytes;
        old
    }

    /// Takes a name and its value out.
    pub fn remove(&mut self, name: &K) -> Option<V> {
        let (old, bytes) = self.entries.remove(name)?;
        self.bytes -= bytes;
        Some(old)
    }

    /// Takes the first name and its value out.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        let name = self.entries.get_min()?.0.clone();
        let value = self.remove(&name)?;
        Some((name, value))
    }

    /// All, in the names' order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.entries.iter().map(|(name, (value, _))| (name, value))
    }

    /// All from this name on, in the names' order.
    pub fn iter_from<'a>(
        &'a self,
        first: &K,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V> {
        self.entries.range(first.clone()..).map(|(name, (value, _))| (name, value))
    }

    /// The names, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.entries.keys()
    }

    /// The values, in the names' order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|(value, _)| value)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of all names and values, as they are encoded. O(1).
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl<K: Ord, V: PartialEq> PartialEq for SharedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        fn entries<K: Ord, V>(map: &SharedMap<K, V>) -> impl Iterator<Item = (&K, &V)> {
            map.entries.iter().map(|(name, (value, _))| (name, value))
        }
        entries(self).eq(entries(other))
    }
}

impl<K, V> FromIterator<(K, V)> for SharedMap<K, V>
where
    K: Ord + Clone + Serialize,
    V: Clone + Serialize,
{
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut named = Self::default();
        for (name, value) in entries {
            named.insert(name, value);
        }
        named
    }
}

impl<K: Ord + Serialize, V: Serialize> Serialize for SharedMap<K, V> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.entries.iter().map(|(name, (value, _))| (name, value)))
    }
}

impl<'de, K, V> Deserialize<'de> for SharedMap<K, V>
where
    K: Ord + Clone + Serialize + Deserialize<'de>,
    V: Clone + Serialize + Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let entries = std::collections::BTreeMap::<K, V>::deserialize(from)?;
        Ok(entries.into_iter().collect())
    }
}
