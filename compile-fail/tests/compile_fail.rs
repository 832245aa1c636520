//! Programs that must not compile: what would make a handle or a guard outlive what it stands for.

#[test]
fn handles_and_guards_cannot_be_misused() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
