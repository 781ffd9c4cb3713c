//! Nobody can tell that the writer commits in groups: whatever waits together, and whoever gives up
//! meanwhile, answers and rows are as if every batch had been committed alone, in the order in which
//! they came.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use futures_util::future::join_all;
use leasehold::storage::sqlite::{SqliteOptions, SqliteStorage};
use proptest::prelude::*;

use super::*;

const ROWS: u64 = 4;
const LABEL: u64 = 77;

/// What a batch is made of. It says what it expects, which may be wrong.
#[derive(Clone, Debug)]
enum Part {
    Insert { row: u64, labelled: bool },
    Replace { row: u64, from: u64 },
    Delete { row: u64, rev: u64 },
    Require { row: u64 },
    Fewer { max: u64 },
}

fn part() -> impl Strategy<Value = Part> {
    let row = || 0..ROWS;
    prop_oneof![
        3 => (row(), any::<bool>()).prop_map(|(row, labelled)| Part::Insert { row, labelled }),
        4 => (row(), 1..4u64).prop_map(|(row, from)| Part::Replace { row, from }),
        2 => (row(), 1..4u64).prop_map(|(row, rev)| Part::Delete { row, rev }),
        1 => row().prop_map(|row| Part::Require { row }),
        1 => (0..3u64).prop_map(|max| Part::Fewer { max }),
    ]
}

fn change(part: &Part) -> Change {
    match *part {
        Part::Insert { row, labelled: true } => insert(labelled_row(row, &[LABEL])),
        Part::Insert { row: number, labelled: false } => insert(row(number)),
        Part::Replace { row: number, from } => replace(Row { rev: from + 1, ..row(number) }),
        Part::Delete { row: number, rev } => delete(&Row { rev, ..row(number) }),
        Part::Require { row } => Change::RequireRow { key: key(row) },
        Part::Fewer { max } => Change::RequireFewer {
            namespace: NamespaceId::ROOT,
            kind: KIND,
            label: tag(LABEL),
            max,
        },
    }
}

/// Too simple to be wrong: revision and label of each row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model(BTreeMap<u64, (u64, bool)>);

impl Model {
    fn apply(&mut self, parts: &[Part]) -> bool {
        let mut after = self.clone();
        let done = parts.iter().all(|part| after.apply_one(part));
        if done {
            *self = after;
        }
        done
    }

    fn apply_one(&mut self, part: &Part) -> bool {
        match *part {
            Part::Insert { row, labelled } => {
                let free = !self.0.contains_key(&row);
                self.0.entry(row).or_insert((1, labelled));
                free
            }
            Part::Replace { row, from } => {
                let fits = self.0.get(&row).is_some_and(|(rev, _)| *rev == from);
                if fits {
                    self.0.insert(row, (from + 1, false));
                }
                fits
            }
            Part::Delete { row, rev } => {
                let fits = self.0.get(&row).is_some_and(|(known, _)| *known == rev);
                if fits {
                    self.0.remove(&row);
                }
                fits
            }
            Part::Require { row } => self.0.contains_key(&row),
            Part::Fewer { max } => {
                (self.0.values().filter(|(_, labelled)| *labelled).count() as u64) < max
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_group_is_as_good_as_one_batch_after_the_other(
        batches in prop::collection::vec(
            (prop::collection::vec(part(), 1..4), prop::bool::weighted(0.2)),
            1..40,
        ),
        group_batches_max in 1..12usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let options = SqliteOptions { group_batches_max, ..SqliteOptions::default() };
            let store = SqliteStorage::open(&directory.path().join("s.db"), options).unwrap();
            // Asked for in this order, before anybody waits for an answer.
            let mut answers = Vec::new();
            for (parts, given_up) in &batches {
                let mut answer = store.commit(parts.iter().map(change).collect());
                let early = (&mut answer).now_or_never();
                if !given_up {
                    answers.push(async move { match early {
                        Some(answer) => answer,
                        None => answer.await,
                    }});
                }
            }
            let answers = join_all(answers).await;
            let mut model = Model::default();
            let expected: Vec<(bool, bool)> = batches
                .iter()
                .map(|(parts, given_up)| (model.apply(parts), *given_up))
                .collect();
            let heard = expected.iter().filter(|(_, given_up)| !given_up).map(|(done, _)| *done);
            let told: Vec<bool> = answers.iter().map(Result::is_ok).collect();
            assert_eq!(told, heard.collect::<Vec<_>>(), "{batches:?}");
            for answer in answers {
                let refusal = answer.err();
                let right = matches!(
                    refusal,
                    None | Some(StorageError::Conflict | StorageError::Limit)
                );
                assert!(right, "{refusal:?}");
            }
            // Behind everything else in the queue, also behind what nobody waits for.
            store.commit(vec![insert(row(ROWS))]).await.unwrap();
            let mut stored = Model::default();
            for number in 0..ROWS {
                if let Some(row) = store.get(key(number)).await.unwrap() {
                    stored.0.insert(number, (row.rev, row.labels == [tag(LABEL)]));
                }
            }
            assert_eq!(stored, model, "{batches:?}");
        });
    }
}
