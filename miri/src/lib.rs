//! Nothing: the programs are in `tests`. They also run as ordinary tests.
//!
//! ```text
//! MIRIFLAGS="-Zmiri-strict-provenance -Zmiri-ignore-leaks" cargo +nightly miri test -p miri-programs
//! ```
//!
//! Leaks are ignored because a reservation is kept for ever.
