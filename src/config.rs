//! The three modes and what configuration accepts.
#![forbid(unsafe_code)]

use core::fmt;
use core::str::FromStr;

/// Bytes of a slab if nothing else is configured.
pub(crate) const DEFAULT_SLAB_SIZE: usize = 256 << 10;
/// Smallest slab: one page of 64 KiB.
pub(crate) const MIN_SLAB_SIZE: usize = 64 << 10;
/// Largest slab.
pub(crate) const MAX_SLAB_SIZE: usize = 16 << 20;

/// Address space to ask for if nothing else is configured: 1 TiB, or 1 GiB on 32-bit targets.
pub(crate) const DEFAULT_RESERVATION: usize =
    if usize::BITS >= 64 { 1 << (usize::BITS - 24) } else { 1 << 30 };

/// Where allocations go.
///
/// ```
/// use shockwave_alloc::Mode;
///
/// assert_eq!("slab".parse(), Ok(Mode::Slab));
/// assert_eq!(Mode::Arena.to_string(), "arena");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[repr(u8)]
pub enum Mode {
    /// Passthrough: every call goes to the backing allocator. The baseline of every comparison.
    Standard = 0,
    /// Small objects live in thread-local slab pages of one size class; scopes have no effect.
    Slab = 1,
    /// Slab pages outside a scope; inside one a bump region that is freed as a whole.
    #[default]
    Arena = 2,
}

impl Mode {
    /// The mode's name as `SHOCKWAVE_MODE` accepts it.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Standard => "standard",
            Mode::Slab => "slab",
            Mode::Arena => "arena",
        }
    }

    #[inline]
    pub(crate) const fn from_repr(repr: u8) -> Mode {
        match repr {
            0 => Mode::Standard,
            1 => Mode::Slab,
            _ => Mode::Arena,
        }
    }

    pub(crate) fn from_bytes(name: &[u8]) -> Option<Mode> {
        match name {
            b"standard" => Some(Mode::Standard),
            b"slab" => Some(Mode::Slab),
            b"arena" => Some(Mode::Arena),
            _ => None,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The error of parsing a [`Mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseModeError(());

impl fmt::Display for ParseModeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown mode: accepted are standard, slab and arena")
    }
}

impl core::error::Error for ParseModeError {}

impl FromStr for Mode {
    type Err = ParseModeError;

    fn from_str(name: &str) -> Result<Mode, ParseModeError> {
        Mode::from_bytes(name.as_bytes()).ok_or(ParseModeError(()))
    }
}

/// What an instance is built with; the environment overrides it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub mode: Mode,
    /// Bytes of a slab, a multiple of 64 KiB.
    pub slab_size: usize,
    /// Bytes of address space to ask for.
    pub reservation: usize,
    /// Whether sizes whose blocks escape are placed outside of arenas.
    pub pretenuring: bool,
    /// Whether the OS may use huge pages for the reservation.
    pub huge_pages: bool,
}

impl Config {
    pub(crate) const DEFAULT: Config = Config {
        mode: Mode::Arena,
        slab_size: DEFAULT_SLAB_SIZE,
        reservation: DEFAULT_RESERVATION,
        pretenuring: true,
        huge_pages: false,
    };
}

/// Whether `size` is a slab size that is accepted.
pub(crate) const fn is_slab_size(size: usize) -> bool {
    size >= MIN_SLAB_SIZE && size <= MAX_SLAB_SIZE && size.is_multiple_of(MIN_SLAB_SIZE)
}

/// Parses a slab size in bytes, with an optional suffix `K` or `M` (KiB, MiB).
pub(crate) fn parse_slab_size(text: &[u8]) -> Option<usize> {
    let (digits, unit) = match text.split_last()? {
        (b'K' | b'k', rest) => (rest, 1 << 10),
        (b'M' | b'm', rest) => (rest, 1 << 20),
        _ => (text, 1),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0usize;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(usize::from(digit - b'0'))?;
    }
    value.checked_mul(unit).filter(|&size| is_slab_size(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slab_sizes_are_parsed_or_refused() {
        assert_eq!(parse_slab_size(b"262144"), Some(256 << 10));
        assert_eq!(parse_slab_size(b"512K"), Some(512 << 10));
        assert_eq!(parse_slab_size(b"1m"), Some(1 << 20));
        for bad in ["", "K", "0", "100", "65537", "1G", "-64K", "32M", "99999999999999999999", "64 K"] {
            assert_eq!(parse_slab_size(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn modes_round_trip() {
        for mode in [Mode::Standard, Mode::Slab, Mode::Arena] {
            assert_eq!(mode.name().parse(), Ok(mode));
            assert_eq!(Mode::from_repr(mode as u8), mode);
        }
        assert!("Arena".parse::<Mode>().is_err());
    }
}
