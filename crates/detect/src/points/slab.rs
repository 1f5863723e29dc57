//! Items with indices that stay valid until the item is removed.

use serde::{Deserialize, Serialize};

/// A list with holes; a new item takes the newest hole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, item: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.items[index as usize] = Some(item);
            return index;
        }
        self.items.push(Some(item));
        self.items.len() as u32 - 1
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.items.get(index as usize)?.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.items.get_mut(index as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let removed = self.items.get_mut(index as usize)?.take();
        if removed.is_some() {
            self.free.push(index);
        }
        removed
    }

    /// Takes an item out for a while; its index stays taken until [`Slab::restore`].
    pub(super) fn lend(&mut self, index: u32) -> Option<T> {
        self.items.get_mut(index as usize)?.take()
    }

    pub(super) fn restore(&mut self, index: u32, item: T) {
        self.items[index as usize] = Some(item);
    }

    /// Returns the items with their indices.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.items.iter().zip(0..).filter_map(|(item, index)| Some((index, item.as_ref()?)))
    }

    /// Returns the number of items.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }
}
