//! The demonstration, whole.

use super::{leasehold, text};

#[test]
fn every_step_of_the_demonstration_holds() {
    let output = leasehold(&["demo"]).output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
    assert!(!said.contains('\u{1b}'), "colour in a pipe: {said}");
    for step in [
        "greeting = hello",
        "permission denied",
        "it logs in",
        "the same login is refused",
        "none edited, removed or moved",
        "checks held.",
    ] {
        assert!(said.contains(step), "no {step:?} in {said}");
    }
}
