//! A bounded stack without memory of its own.
#![forbid(unsafe_code)]

/// At most `N` items, the last one in comes out first.
#[derive(Debug)]
pub(super) struct Lifo<T, const N: usize> {
    /// The first `len` are there.
    slots: [Option<T>; N],
    len: usize,
}

impl<T, const N: usize> Lifo<T, N> {
    pub(super) const NEW: Lifo<T, N> = Lifo { slots: [const { None }; N], len: 0 };

    /// Puts an item on top, or gives it back if there is no room.
    pub(super) fn push(&mut self, item: T) -> Result<(), T> {
        match self.slots.get_mut(self.len) {
            Some(slot) => {
                *slot = Some(item);
                self.len += 1;
                Ok(())
            }
            None => Err(item),
        }
    }

    /// Takes the top item.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        self.slots[self.len].take()
    }

    /// Takes the item that has been there longest.
    pub(super) fn take_oldest(&mut self) -> Option<T> {
        let oldest = self.slots[..self.len].first_mut()?.take();
        self.slots[..self.len].rotate_left(1);
        self.len -= 1;
        oldest
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::Lifo;

    #[test]
    fn last_in_first_out_and_oldest_first() {
        let mut lifo = Lifo::<u32, 3>::NEW;
        assert_eq!((lifo.pop(), lifo.take_oldest()), (None, None));
        for n in 0..3 {
            assert_eq!(lifo.len(), n as usize);
            assert_eq!(lifo.push(n), Ok(()));
        }
        assert_eq!(lifo.push(9), Err(9));
        assert_eq!(lifo.take_oldest(), Some(0));
        assert_eq!(lifo.push(3), Ok(()));
        assert_eq!([lifo.pop(), lifo.pop(), lifo.pop(), lifo.pop()], [Some(3), Some(2), Some(1), None]);
    }
}
