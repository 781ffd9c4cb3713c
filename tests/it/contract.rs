//! What the tables of routes promise, held against the answers that are recorded.

use leasehold::core::operation::Operation;
use leasehold::core::route::Answer;
use leasehold::core::seal::endpoints;

use crate::access;

#[test]
fn every_read_says_what_it_answers() {
    let tables = access::tables()
        .into_iter()
        .flat_map(|(prefix, table)| table.iter().map(move |route| (prefix, route)));
    let undescribed: Vec<String> = tables
        .chain(endpoints::specs().map(|route| ("", route)))
        .filter(|(_, route)| {
            route.serves(Operation::Read)
                && matches!(route.answers.read, Answer::Nothing | Answer::Data([]))
        })
        .map(|(prefix, route)| format!("{prefix}{}", route.pattern))
        .collect();
    assert!(undescribed.is_empty(), "no answer is described of a read of {undescribed:#?}");
}
