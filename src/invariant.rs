//! Messages and fatal errors from inside the allocator: written with `write(2)`, never formatted, never unwinding.

/// Writes the parts to standard error, one after the other. Does not allocate and ignores errors.
pub(crate) fn say(parts: &[&[u8]]) {
    #[cfg(all(unix, not(miri)))]
    {
        // One write where it fits, so that lines of several threads do not mix.
        let mut line = [0u8; 256];
        let mut used = 0;
        for part in parts {
            for &byte in *part {
                if used < line.len() {
                    line[used] = byte;
                    used += 1;
                }
            }
        }
        // SAFETY: the buffer is valid for `used` bytes; a failure is harmless and ignored.
        unsafe { libc::write(2, line.as_ptr().cast(), used) };
    }
    #[cfg(not(all(unix, not(miri))))]
    let _ = parts;
}

/// Ends the process because memory is corrupt: going on could only do harm.
#[cold]
pub(crate) fn fatal(what: &str) -> ! {
    say(&[b"shockwave: ", what.as_bytes(), b"\n"]);
    // Under Miri abort() reports a backtrace, which is the better message.
    #[cfg(all(unix, not(miri)))]
    // SAFETY: abort has no preconditions; unlike std's it never runs Rust code first.
    unsafe {
        libc::abort()
    }
    #[cfg(not(all(unix, not(miri))))]
    std::process::abort()
}

/// Decimal digits of `value`, for [`say`].
pub(crate) struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    pub(crate) fn new(mut value: u64) -> Decimal {
        let mut decimal = Decimal { digits: [b'0'; 20], start: 19 };
        while value >= 10 {
            decimal.digits[decimal.start] = b'0' + (value % 10) as u8;
            value /= 10;
            decimal.start -= 1;
        }
        decimal.digits[decimal.start] = b'0' + value as u8;
        decimal
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.digits.get(self.start..).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::Decimal;

    #[test]
    fn decimals_are_what_format_prints() {
        for value in [0, 1, 9, 10, 12345, u64::MAX] {
            assert_eq!(Decimal::new(value).as_bytes(), value.to_string().as_bytes());
        }
    }
}
