//! What the kernel says of the memory behind addresses.

/// Whether the OS page at `address` has memory.
pub fn is_resident(address: usize) -> bool {
    let mut resident = 0;
    // SAFETY: the kernel writes one byte for one page.
    let result = unsafe { libc::mincore(std::ptr::without_provenance_mut(address), 1, &raw mut resident) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    resident & 1 == 1
}
