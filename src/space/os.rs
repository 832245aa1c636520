//! System calls for the address space. Each keeps `errno` as it was.

#[cfg(all(unix, not(miri)))]
use crate::sync::keeping_errno;

/// Reserves address space, `wanted` bytes or a power of two less. Returns start and length.
#[cfg(all(unix, not(miri)))]
pub(super) fn reserve(wanted: usize) -> Option<(*mut u8, usize)> {
    const LEAST: usize = 1 << 20;
    keeping_errno(|| {
        let mut size = wanted.max(LEAST);
        let mut refused = false;
        loop {
            match region::alloc(size, region::Protection::NONE) {
                Ok(granted) if !refused => return Some(granted.into_raw_parts()),
                // Dropping what was granted returns it; the program keeps that half for itself.
                Ok(_) => refused = false,
                Err(_) => refused = true,
            }
            if size / 2 < LEAST {
                return None;
            }
            size /= 2;
        }
    })
}

#[cfg(all(unix, not(miri)))]
pub(super) fn commit(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: the range is inside the reservation and belongs to no one yet.
    keeping_errno(|| unsafe { region::protect(start, bytes, region::Protection::READ_WRITE) }.is_ok())
}

/// Asks for pages of the ordinary size in a range: in huge ones a touched byte would cost 2 MiB, and what was given back would be
/// filled again. A kernel without huge pages refuses, which is as good.
#[cfg(all(target_os = "linux", not(miri)))]
pub(super) fn avoid_huge_pages(start: *mut u8, bytes: usize) {
    // SAFETY: advice about a range that was just reserved.
    keeping_errno(|| unsafe { libc::madvise(start.cast(), bytes, libc::MADV_NOHUGEPAGE) });
}

#[cfg(any(not(target_os = "linux"), miri))]
pub(super) fn avoid_huge_pages(_start: *mut u8, _bytes: usize) {}

/// Gives the memory of a range back; it reads as zeros afterwards.
#[cfg(all(target_os = "linux", not(miri)))]
pub(super) fn purge(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: the range is committed and its contents are not needed any more.
    keeping_errno(|| unsafe { libc::madvise(start.cast(), bytes, libc::MADV_DONTNEED) } == 0)
}

/// The OS pages that lie in a range as a whole: what [`purge`] may be called with without touching their neighbours.
pub(super) fn whole_pages(start: *mut u8, bytes: usize) -> (*mut u8, usize) {
    #[cfg(all(unix, not(miri)))]
    let page = region::page::size();
    #[cfg(not(all(unix, not(miri))))]
    let page = 4 << 10;
    let from = start.map_addr(|addr| addr.next_multiple_of(page));
    let end = (start.addr() + bytes) & !(page - 1);
    (from, end.saturating_sub(from.addr()))
}

/// Replaces the mapping of a range by a fresh one, which can merge with its neighbours.
#[cfg(all(target_os = "linux", not(miri)))]
pub(super) fn renew(start: *mut u8, bytes: usize) -> bool {
    keeping_errno(|| match region::alloc_at(start, bytes, region::Protection::READ_WRITE) {
        Ok(mapping) => {
            // The reservation keeps it.
            let _ = mapping.into_raw_parts::<u8>();
            true
        }
        Err(_) => false,
    })
}

/// Maps a range that may have become a hole, so that nobody else's mapping can come to lie in the reservation.
#[cfg(all(target_os = "linux", not(miri)))]
pub(super) fn fill_hole(start: *mut u8, bytes: usize) {
    const FLAGS: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: with NOREPLACE nothing that is mapped is changed; a failure means that there is no hole.
    keeping_errno(|| unsafe { libc::mmap(start.cast(), bytes, libc::PROT_NONE, FLAGS, -1, 0) });
}

#[cfg(any(not(target_os = "linux"), miri))]
pub(super) fn fill_hole(_start: *mut u8, _bytes: usize) {}

/// # Safety
///
/// As [`super::move_pages`].
#[cfg(all(target_os = "linux", not(miri)))]
pub(super) unsafe fn move_pages(from: *mut u8, to: *mut u8, bytes: usize) -> bool {
    const FLAGS: libc::c_int = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    keeping_errno(|| {
        // SAFETY: both ranges belong to the caller; DONTUNMAP leaves the old range mapped, so the reservation has
        // no hole at any moment.
        let moved = unsafe { libc::mremap(from.cast(), bytes, bytes, FLAGS, to) };
        moved == to.cast()
    })
}

#[cfg(any(not(target_os = "linux"), miri))]
pub(super) fn purge(_start: *mut u8, _bytes: usize) -> bool {
    false
}

#[cfg(any(not(target_os = "linux"), miri))]
pub(super) fn renew(_start: *mut u8, _bytes: usize) -> bool {
    false
}

/// # Safety
///
/// None: it does nothing.
#[cfg(any(not(target_os = "linux"), miri))]
pub(super) unsafe fn move_pages(_from: *mut u8, _to: *mut u8, _bytes: usize) -> bool {
    false
}

/// Under Miri the reservation is one block from `System`.
#[cfg(miri)]
pub(super) fn reserve(wanted: usize) -> Option<(*mut u8, usize)> {
    use std::alloc::{GlobalAlloc, Layout, System};
    let size = wanted.min(16 << 20);
    let layout = Layout::from_size_align(size, super::PAGE_SIZE).ok()?;
    // SAFETY: the size is not zero.
    let block = unsafe { System.alloc_zeroed(layout) };
    (!block.is_null()).then_some((block, size))
}

/// Elsewhere everything goes to the backing allocator.
#[cfg(not(any(unix, miri)))]
pub(super) fn reserve(_wanted: usize) -> Option<(*mut u8, usize)> {
    None
}

#[cfg(any(not(unix), miri))]
pub(super) fn commit(_start: *mut u8, _bytes: usize) -> bool {
    true
}

/// Resident set of the process in bytes as the OS counts it, or 0 where it is not known.
pub(super) fn resident_bytes() -> usize {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        let mut text = [0u8; 128];
        // SAFETY: the path is a C string, the buffer is valid for its length, the descriptor is closed again.
        let read = keeping_errno(|| unsafe {
            let file = libc::open(c"/proc/self/statm".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            if file < 0 {
                return 0;
            }
            let read = libc::read(file, text.as_mut_ptr().cast(), text.len());
            libc::close(file);
            read
        });
        let text = text.get(..read.max(0) as usize).unwrap_or(&[]);
        let pages = text.split(|&byte| byte == b' ').nth(1).unwrap_or(&[]);
        let pages =
            pages.iter().fold(0usize, |sum, &byte| sum * 10 + usize::from(byte.wrapping_sub(b'0') & 15));
        pages * region::page::size()
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    0
}
