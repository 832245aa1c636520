//! The atomics of the standard library, with each operation noted in [`contention`](crate::contention).

#![allow(dead_code, reason = "each type has the methods that any of them needs")]

use core::sync::atomic::{self, Ordering};

use crate::contention::{Access, note};

/// A method of an atomic that is noted and handed through.
macro_rules! noted {
    ($($access:ident $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            #[inline]
            pub(crate) fn $name(&self $(, $argument: $type)*) -> $result {
                note(core::ptr::from_ref(self).cast(), Access::$access);
                self.0.$name($($argument),*)
            }
        )*
    };
}

/// What all of them have.
macro_rules! any {
    ($value:ty) => {
        noted! {
            Read load(order: Ordering) -> $value;
            Write store(value: $value, order: Ordering) -> ();
            ReadModifyWrite swap(value: $value, order: Ordering) -> $value;
            ReadModifyWrite compare_exchange(old: $value, new: $value, order: Ordering, failed: Ordering) -> Result<$value, $value>;
            ReadModifyWrite compare_exchange_weak(old: $value, new: $value, order: Ordering, failed: Ordering) -> Result<$value, $value>;
        }

        #[inline]
        pub(crate) fn get_mut(&mut self) -> &mut $value {
            self.0.get_mut()
        }

        #[inline]
        pub(crate) const fn as_ptr(&self) -> *mut $value {
            self.0.as_ptr()
        }
    };
}

macro_rules! integer {
    ($($name:ident: $value:ty;)*) => {
        $(
            #[derive(Debug, Default)]
            #[repr(transparent)]
            pub(crate) struct $name(atomic::$name);

            impl $name {
                #[inline]
                pub(crate) const fn new(value: $value) -> $name {
                    $name(atomic::$name::new(value))
                }

                any!($value);

                noted! {
                    ReadModifyWrite fetch_add(value: $value, order: Ordering) -> $value;
                    ReadModifyWrite fetch_sub(value: $value, order: Ordering) -> $value;
                    ReadModifyWrite fetch_and(value: $value, order: Ordering) -> $value;
                    ReadModifyWrite fetch_or(value: $value, order: Ordering) -> $value;
                    ReadModifyWrite fetch_max(value: $value, order: Ordering) -> $value;
                }

                #[inline]
                pub(crate) fn fetch_update(
                    &self,
                    order: Ordering,
                    failed: Ordering,
                    update: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    note(core::ptr::from_ref(self).cast(), Access::ReadModifyWrite);
                    self.0.fetch_update(order, failed, update)
                }
            }
        )*
    };
}

integer! {
    AtomicI32: i32;
    AtomicIsize: isize;
    AtomicU8: u8;
    AtomicU16: u16;
    AtomicU32: u32;
    AtomicU64: u64;
    AtomicUsize: usize;
}

#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct AtomicBool(atomic::AtomicBool);

impl AtomicBool {
    #[inline]
    pub(crate) const fn new(value: bool) -> AtomicBool {
        AtomicBool(atomic::AtomicBool::new(value))
    }

    any!(bool);
}

#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct AtomicPtr<T>(atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    #[inline]
    pub(crate) const fn new(value: *mut T) -> AtomicPtr<T> {
        AtomicPtr(atomic::AtomicPtr::new(value))
    }

    any!(*mut T);
}
