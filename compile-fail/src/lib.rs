//! Nothing: the tests of this package are programs in `tests/ui` that must not compile.
