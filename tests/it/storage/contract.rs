//! What every store promises.

use futures_util::future::join_all;
use leasehold::storage::{Invalidation, PAGE_ROWS_MAX, Page};

use super::*;

macro_rules! assert_conflict {
    ($result:expr) => {
        assert!(matches!($result, Err(StorageError::Conflict)))
    };
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn numbers(rows: &[Row]) -> Vec<u64> {
    let number = |row: &Row| u64::from_be_bytes(row.key.name.as_bytes()[..8].try_into().unwrap());
    rows.iter().map(number).collect()
}

async fn put_all(store: &Arc<dyn Storage>, rows: impl IntoIterator<Item = Row>) {
    store.commit(rows.into_iter().map(insert).collect()).await.unwrap();
}

async fn list(store: &Arc<dyn Storage>, after: Option<Tag>, limit: usize) -> Page {
    store.list(NamespaceId::ROOT, KIND, tag(PARENT), after, limit).await.unwrap()
}

async fn labelled(store: &Arc<dyn Storage>, label: u64) -> Vec<u64> {
    let page = store.labelled(NamespaceId::ROOT, KIND, tag(label), None, 100).await.unwrap();
    numbers(&page.rows)
}

pub async fn rows_come_back_as_they_were_put(test: &TestStore) {
    let store = test.open().await;
    let full = Row {
        key: RowKey { namespace: NamespaceId(u32::MAX), kind: Kind(u16::MAX), name: tag(u64::MAX) },
        parent: Tag::from_bytes([0xff; 16]),
        rev: 1,
        due_at: Some(at(-5)),
        labels: vec![tag(9), tag(3), tag(5)],
        sealed: sealed(u32::MAX, &vec![7; 100_000]),
    };
    let plain = row(0);
    put_all(&store, [full.clone(), plain.clone()]).await;
    assert_eq!(store.get(full.key).await.unwrap(), Some(full.clone()));
    assert_eq!(store.get(plain.key).await.unwrap(), Some(plain.clone()));
    assert_eq!(store.get(key(404)).await.unwrap(), None);

    let changed = Row {
        parent: tag(8),
        rev: 2,
        due_at: None,
        labels: vec![tag(3), tag(4)],
        sealed: sealed(2, b"other"),
        ..full
    };
    store.commit(vec![replace(changed.clone())]).await.unwrap();
    assert_eq!(store.get(full.key).await.unwrap(), Some(changed.clone()));
    store.commit(vec![delete(&changed)]).await.unwrap();
    assert_eq!(store.get(full.key).await.unwrap(), None);
    store.commit(vec![]).await.unwrap();
}

pub async fn a_change_that_expects_something_else_is_a_conflict(test: &TestStore) {
    let store = test.open().await;
    let first = row(1);
    assert_conflict!(store.commit(vec![replace(next(&first))]).await);
    assert_conflict!(store.commit(vec![delete(&first)]).await);
    put_all(&store, [first.clone()]).await;
    assert_conflict!(store.commit(vec![insert(first.clone())]).await);
    assert_conflict!(store.commit(vec![replace(next(&next(&first)))]).await);
    assert_conflict!(store.commit(vec![delete(&next(&first))]).await);
    assert_eq!(store.get(first.key).await.unwrap(), Some(first.clone()));

    // A row that would not follow what it expects is a mistake of the caller, and never stored.
    let skipping = Change::Put { row: Row { rev: 3, ..row(1) }, expect: Expect::Rev(1) };
    assert!(matches!(store.commit(vec![skipping]).await, Err(StorageError::Corrupt(_))));
    let not_first = Change::Put { row: Row { rev: 2, ..row(2) }, expect: Expect::Absent };
    assert!(matches!(store.commit(vec![not_first]).await, Err(StorageError::Corrupt(_))));
    assert_eq!(store.get(key(2)).await.unwrap(), None);

    store.commit(vec![delete(&first)]).await.unwrap();
    assert_conflict!(store.commit(vec![delete(&first)]).await);
    put_all(&store, [first]).await;
}

pub async fn a_batch_happens_whole_or_not_at_all(test: &TestStore) {
    let store = test.open().await;
    let (kept, guard) = (labelled_row(1, &[50]), row(2));
    put_all(&store, [kept.clone(), guard.clone()]).await;
    let child_of_guard = Row { parent: tag(2), ..row(3) };
    put_all(&store, [child_of_guard]).await;
    let failing = [
        insert(kept.clone()),
        replace(next(&next(&kept))),
        delete(&next(&guard)),
        Change::RequireRow { key: key(404) },
        Change::RequireChildless { guard: guard.key, kind: KIND, parent: tag(2) },
        Change::RequireFewer { namespace: NamespaceId::ROOT, kind: KIND, label: tag(50), max: 1 },
        Change::PutMeta { name: "m", value: Some(vec![2]), expect: Some(Some(vec![9])) },
    ];
    for failure in failing {
        let batch = vec![
            insert(labelled_row(10, &[60])),
            delete(&guard),
            Change::PutMeta { name: "m", value: Some(vec![1]), expect: None },
            failure.clone(),
            insert(row(11)),
        ];
        // With the guard deleted its own conditions fail all the more.
        let result = store.commit(batch).await;
        assert!(
            matches!(result, Err(StorageError::Conflict | StorageError::Limit)),
            "{failure:?}: {result:?}"
        );
        assert_eq!(store.get(key(10)).await.unwrap(), None, "{failure:?}");
        assert_eq!(store.get(key(11)).await.unwrap(), None, "{failure:?}");
        assert_eq!(store.get(guard.key).await.unwrap(), Some(guard.clone()), "{failure:?}");
        assert_eq!(store.meta("m").await.unwrap(), None, "{failure:?}");
        assert_eq!(labelled(&store, 60).await, [0; 0], "{failure:?}");
    }
}

pub async fn changes_see_those_before_them_in_the_batch(test: &TestStore) {
    let store = test.open().await;
    let (directory, child) = (row(1), Row { parent: tag(1), ..row(2) });
    let childless = Change::RequireChildless { guard: key(1), kind: KIND, parent: tag(1) };
    let fewer = |max| Change::RequireFewer {
        namespace: NamespaceId::ROOT,
        kind: KIND,
        label: tag(50),
        max,
    };
    put_all(&store, [directory.clone(), child.clone()]).await;

    assert_conflict!(store.commit(vec![childless.clone(), delete(&child)]).await);
    store.commit(vec![delete(&child), childless.clone(), delete(&directory)]).await.unwrap();
    assert_eq!(store.get(child.key).await.unwrap(), None);

    // Made, replaced, removed and made again.
    let second = Row { labels: vec![tag(51)], ..next(&labelled_row(3, &[50])) };
    store
        .commit(vec![
            insert(labelled_row(3, &[50])),
            Change::RequireRow { key: key(3) },
            replace(second.clone()),
            delete(&second),
            insert(labelled_row(3, &[52])),
        ])
        .await
        .unwrap();
    assert_eq!(store.get(key(3)).await.unwrap(), Some(labelled_row(3, &[52])));
    assert_eq!(labelled(&store, 50).await, [0; 0]);
    assert_eq!(labelled(&store, 51).await, [0; 0]);
    assert_eq!(labelled(&store, 52).await, [3]);

    assert_conflict!(store.commit(vec![delete(&row(3)), Change::RequireRow { key: key(3) }]).await);
    assert!(matches!(
        store.commit(vec![insert(labelled_row(4, &[50])), fewer(1)]).await,
        Err(StorageError::Limit)
    ));
    store.commit(vec![fewer(1), insert(labelled_row(4, &[50]))]).await.unwrap();
    store.commit(vec![delete(&row(4)), fewer(1), insert(labelled_row(5, &[50]))]).await.unwrap();
    assert_eq!(labelled(&store, 50).await, [5]);
    assert!(matches!(store.commit(vec![fewer(0)]).await, Err(StorageError::Limit)));
}

pub async fn namespaces_and_kinds_do_not_mix(test: &TestStore) {
    let store = test.open().await;
    let mine = Row { due_at: Some(at(1)), ..labelled_row(1, &[50]) };
    let other_kind = Row { key: RowKey { kind: Kind(8), ..mine.key }, ..mine.clone() };
    let other_tenant =
        Row { key: RowKey { namespace: NamespaceId(9), ..mine.key }, ..mine.clone() };
    put_all(&store, [mine.clone(), other_kind.clone(), other_tenant.clone()]).await;
    for row in [&mine, &other_kind, &other_tenant] {
        let RowKey { namespace, kind, .. } = row.key;
        assert_eq!(store.get(row.key).await.unwrap().as_ref(), Some(row));
        let listed = store.list(namespace, kind, tag(PARENT), None, 10).await.unwrap();
        assert_eq!(&listed.rows, std::slice::from_ref(row));
        let found = store.labelled(namespace, kind, tag(50), None, 10).await.unwrap();
        assert_eq!(&found.rows, std::slice::from_ref(row));
        assert_eq!(store.count_labelled(namespace, kind, tag(50), 9).await.unwrap(), 1);
    }
    // What is due concerns the server as a whole.
    assert_eq!(store.due(KIND, at(1), 10).await.unwrap().len(), 2);
    store.commit(vec![delete(&mine)]).await.unwrap();
    assert_eq!(store.get(other_kind.key).await.unwrap(), Some(other_kind));
    assert_eq!(store.get(other_tenant.key).await.unwrap(), Some(other_tenant));
}

pub async fn listings_page_in_tag_order(test: &TestStore) {
    let store = test.open().await;
    // In an order that is not the one they are listed in.
    put_all(&store, (0..25u64).map(|n| labelled_row((n * 7) % 25, &[50]))).await;
    put_all(&store, [Row { parent: tag(2), ..row(100) }]).await;
    for by_label in [false, true] {
        let (mut after, mut seen, mut sizes) = (None, vec![], vec![]);
        loop {
            let page = if by_label {
                store.labelled(NamespaceId::ROOT, KIND, tag(50), after, 10).await.unwrap()
            } else {
                list(&store, after, 10).await
            };
            sizes.push(page.rows.len());
            seen.extend(numbers(&page.rows));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(sizes, [10, 10, 5]);
        assert_eq!(seen, (0..25).collect::<Vec<_>>());
    }
    let exactly = list(&store, None, 25).await;
    assert_eq!((exactly.rows.len(), exactly.next), (25, None), "no empty page follows");
    assert!(list(&store, Some(tag(24)), 10).await.rows.is_empty());
    // A cursor whose row has gone meanwhile still says where to go on.
    store.commit(vec![delete(&row(9))]).await.unwrap();
    assert_eq!(numbers(&list(&store, Some(tag(9)), 2).await.rows), [10, 11]);
    // A limit of nothing would never get anywhere.
    assert_eq!(list(&store, None, 0).await.rows.len(), 1);
}

pub async fn pages_are_capped(test: &TestStore) {
    let store = test.open().await;
    let many = PAGE_ROWS_MAX as u64 + 5;
    put_all(&store, (0..many).map(|n| due_row(n, 0))).await;
    let page = list(&store, None, usize::MAX).await;
    assert_eq!(page.rows.len(), PAGE_ROWS_MAX);
    assert_eq!(list(&store, page.next, usize::MAX).await.rows.len(), 5);
    assert_eq!(store.due(KIND, at(0), usize::MAX).await.unwrap().len(), PAGE_ROWS_MAX);
    assert_eq!(store.wrapped_below(2, None, usize::MAX).await.unwrap().len(), PAGE_ROWS_MAX);
    let claimed = store.claim(KIND, at(0), 1, at(9), usize::MAX).await.unwrap();
    assert_eq!(claimed.len(), PAGE_ROWS_MAX);
    assert_eq!(store.claim(KIND, at(0), 1, at(9), usize::MAX).await.unwrap().len(), 5);
}

pub async fn labels_follow_their_rows(test: &TestStore) {
    let store = test.open().await;
    let first = labelled_row(1, &[50, 51]);
    put_all(&store, [first.clone(), labelled_row(2, &[51]), row(3)]).await;
    assert_eq!(labelled(&store, 50).await, [1]);
    assert_eq!(labelled(&store, 51).await, [1, 2]);
    let relabelled = Row { labels: vec![tag(52), tag(51)], ..next(&first) };
    store.commit(vec![replace(relabelled.clone())]).await.unwrap();
    assert_eq!(labelled(&store, 50).await, [0; 0]);
    assert_eq!(labelled(&store, 51).await, [1, 2]);
    assert_eq!(labelled(&store, 52).await, [1]);
    let count = |label, max| {
        let store = store.clone();
        async move { store.count_labelled(NamespaceId::ROOT, KIND, tag(label), max).await.unwrap() }
    };
    assert_eq!(count(51, 100).await, 2);
    assert_eq!(count(51, 1).await, 1, "no further than asked");
    assert_eq!(count(51, 0).await, 0);
    assert_eq!(count(404, u64::MAX).await, 0);
    store.commit(vec![delete(&relabelled)]).await.unwrap();
    assert_eq!(labelled(&store, 51).await, [2]);
    assert_eq!(count(52, 100).await, 0);
}

pub async fn due_rows_come_earliest_first(test: &TestStore) {
    let store = test.open().await;
    assert_eq!(store.next_due(KIND).await.unwrap(), None);
    put_all(&store, [due_row(1, 300), due_row(2, 100), due_row(3, 200), row(4)]).await;
    let due = async |until, limit| numbers(&store.due(KIND, at(until), limit).await.unwrap());
    assert_eq!(due(99, 10).await, [0; 0]);
    assert_eq!(due(100, 10).await, [2], "due at its time, not after it");
    assert_eq!(due(1000, 10).await, [2, 3, 1]);
    assert_eq!(due(1000, 2).await, [2, 3]);
    assert_eq!(store.next_due(KIND).await.unwrap(), Some(at(100)));
    let count = store.count(KIND, at(200)).await.unwrap();
    assert_eq!((count.total, count.due, count.earliest), (4, 2, Some(at(100))));
    let none = store.count(Kind(99), at(200)).await.unwrap();
    assert_eq!((none.total, none.due, none.earliest), (0, 0, None));

    let moved = Row { due_at: Some(at(400)), ..next(&due_row(2, 100)) };
    store.commit(vec![replace(moved.clone())]).await.unwrap();
    assert_eq!(store.next_due(KIND).await.unwrap(), Some(at(200)));
    store.commit(vec![replace(Row { due_at: None, ..next(&moved) })]).await.unwrap();
    assert_eq!(due(1000, 10).await, [3, 1]);
}

pub async fn a_claim_excludes_others_until_it_ends(test: &TestStore) {
    let store = test.open().await;
    put_all(&store, [due_row(1, 100), due_row(2, 50), due_row(3, 900), row(4)]).await;
    let claim = async |now, node, until, limit| {
        numbers(&store.claim(KIND, at(now), node, at(until), limit).await.unwrap())
    };
    assert_eq!(claim(100, 1, 200, 10).await, [2, 1], "those that are due, earliest first");
    assert_eq!(claim(199, 2, 300, 10).await, [0; 0]);
    assert_eq!(claim(199, 1, 300, 10).await, [0; 0], "not even by the same node");
    assert_eq!(store.due(KIND, at(100), 10).await.unwrap().len(), 2, "due nevertheless");
    assert_eq!(store.next_due(KIND).await.unwrap(), Some(at(50)));
    assert_eq!(store.get(key(1)).await.unwrap(), Some(due_row(1, 100)), "no new revision");
    assert_eq!(claim(200, 2, 300, 1).await, [2], "free at the end of the claim");

    // A claim is kept by re-wrapping and lost by a change.
    store.reseal(vec![(key(2), 1, sealed(2, b"rewrapped"))]).await.unwrap();
    assert_eq!(claim(250, 3, 300, 10).await, [1]);
    let changed = next(&due_row(1, 100));
    store.commit(vec![replace(changed.clone())]).await.unwrap();
    assert_eq!(claim(251, 3, 300, 10).await, [1]);
    // A change that failed leaves it.
    assert_conflict!(store.commit(vec![delete(&due_row(1, 100))]).await);
    assert_conflict!(
        store.commit(vec![replace(next(&changed)), Change::RequireRow { key: key(404) }]).await
    );
    assert_eq!(claim(252, 3, 300, 10).await, [0; 0]);
    store.commit(vec![delete(&changed)]).await.unwrap();
    put_all(&store, [due_row(1, 100)]).await;
    assert_eq!(claim(253, 3, 300, 10).await, [1], "a new row of that name is nobody's");
}

pub async fn parallel_claims_are_disjoint(test: &TestStore) {
    let store = test.open().await;
    put_all(&store, (0..200).map(|n| due_row(n, 1))).await;
    let claims = join_all((0..16u64).map(|node| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut mine = vec![];
            // Skipping what others are claiming this moment may leave a round with less than there is.
            for _ in 0..20 {
                let rows = store.claim(KIND, at(1), node, at(100), 7).await.unwrap();
                mine.extend(numbers(&rows));
            }
            mine
        })
    }))
    .await;
    let mut all: Vec<u64> = claims.into_iter().flat_map(Result::unwrap).collect();
    all.sort_unstable();
    assert_eq!(all, (0..200).collect::<Vec<_>>());
}

pub async fn required_rows_must_be_there(test: &TestStore) {
    let store = test.open().await;
    let require = |number| Change::RequireRow { key: key(number) };
    assert_conflict!(store.commit(vec![require(1), insert(row(2))]).await);
    put_all(&store, [row(1)]).await;
    store.commit(vec![require(1), insert(row(2))]).await.unwrap();
    store.commit(vec![replace(next(&row(1)))]).await.unwrap();
    store.commit(vec![require(1), insert(row(3))]).await.unwrap();

    let childless =
        |parent| Change::RequireChildless { guard: key(1), kind: KIND, parent: tag(parent) };
    assert_conflict!(store.commit(vec![childless(PARENT)]).await);
    store.commit(vec![childless(404)]).await.unwrap();
    let other_kind =
        Change::RequireChildless { guard: key(1), kind: Kind(99), parent: tag(PARENT) };
    store.commit(vec![other_kind]).await.unwrap();
}

pub async fn a_directory_is_never_removed_under_a_child(test: &TestStore) {
    let store = test.open().await;
    for round in 0..40u64 {
        let directory = row(round * 10);
        let parent = directory.key.name;
        put_all(&store, [directory.clone()]).await;
        let children = (1..4).map(|n| {
            vec![
                Change::RequireRow { key: directory.key },
                insert(Row { parent, ..row(round * 10 + n) }),
            ]
        });
        let removal = vec![
            Change::RequireChildless { guard: directory.key, kind: KIND, parent },
            delete(&directory),
        ];
        let mut batches: Vec<_> = children.collect();
        batches.insert(usize::try_from(round % 4).unwrap(), removal);
        let results = join_all(batches.into_iter().map(|batch| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(batch).await })
        }))
        .await;
        for result in results {
            match result.unwrap() {
                Ok(_) | Err(StorageError::Conflict) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        let there = store.get(directory.key).await.unwrap().is_some();
        let page = store.list(NamespaceId::ROOT, KIND, parent, None, 10).await.unwrap();
        assert!(there || page.rows.is_empty(), "children of nothing: {:?}", numbers(&page.rows));
        assert!(!there || page.rows.len() == 3, "refused, although the directory stayed");
    }
}

pub async fn a_limit_is_exact_under_concurrency(test: &TestStore) {
    let store = test.open().await;
    const MAX: u64 = 5;
    let results = join_all((0..40u64).map(|n| {
        let store = store.clone();
        let room = Change::RequireFewer {
            namespace: NamespaceId::ROOT,
            kind: KIND,
            label: tag(50),
            max: MAX,
        };
        tokio::spawn(async move { store.commit(vec![room, insert(labelled_row(n, &[50]))]).await })
    }))
    .await;
    let mut committed = 0;
    for result in results {
        match result.unwrap() {
            Ok(_) => committed += 1,
            Err(StorageError::Limit) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(committed, MAX);
    assert_eq!(labelled(&store, 50).await.len() as u64, MAX);
}

pub async fn parallel_replacements_lose_no_update(test: &TestStore) {
    let store = test.open().await;
    put_all(&store, [row(1)]).await;
    join_all((0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut done = 0;
            while done < 5 {
                let present = store.get(key(1)).await.unwrap().unwrap();
                match store.commit(vec![replace(next(&present))]).await {
                    Ok(_) => done += 1,
                    Err(StorageError::Conflict) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
        })
    }))
    .await
    .into_iter()
    .for_each(Result::unwrap);
    assert_eq!(store.get(key(1)).await.unwrap().unwrap().rev, 1 + 8 * 5);
}

pub async fn a_conflict_in_a_crowd_fails_alone(test: &TestStore) {
    let store = test.open().await;
    put_all(&store, [row(0)]).await;
    let batches = (1..60u64).map(|n| match n % 3 {
        // Fails after it has already changed something.
        0 => vec![insert(labelled_row(n, &[50])), Change::RequireRow { key: key(404) }],
        1 => vec![insert(labelled_row(n, &[50])), insert(row(0))],
        _ => vec![insert(labelled_row(n, &[50]))],
    });
    let results = join_all(batches.map(|batch| {
        let store = store.clone();
        tokio::spawn(async move { store.commit(batch).await })
    }))
    .await;
    for (n, result) in (1u64..).zip(results) {
        match result.unwrap() {
            Ok(_) => assert_eq!(n % 3, 2, "{n}"),
            Err(StorageError::Conflict) => assert_ne!(n % 3, 2, "{n}"),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(labelled(&store, 50).await, (1..60).filter(|n| n % 3 == 2).collect::<Vec<_>>());
}

pub async fn opposite_orders_do_not_lock_each_other_out(test: &TestStore) {
    let store = test.open().await;
    put_all(&store, (0..6).map(row)).await;
    let results = join_all((0..12u64).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 0..10u64 {
                let mut batch: Vec<Change> =
                    (0..6).map(|row| Change::RequireRow { key: key(row) }).collect();
                batch.rotate_left(usize::try_from((n + round) % 6).unwrap());
                for other in [n % 6, (n + 3) % 6] {
                    let present = store.get(key(other)).await.unwrap().unwrap();
                    batch.push(replace(next(&present)));
                }
                for fresh in [n % 4, (n + 2) % 4] {
                    batch.push(insert(row(100 + round * 4 + fresh)));
                }
                if n % 2 == 1 {
                    batch.reverse();
                }
                match store.commit(batch).await {
                    Ok(_) | Err(StorageError::Conflict) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
        })
    }))
    .await;
    results.into_iter().for_each(Result::unwrap);
}

pub async fn resealing_touches_nothing_else(test: &TestStore) {
    let store = test.open().await;
    let rows: Vec<Row> =
        (0..3).map(|n| Row { due_at: Some(at(5)), ..labelled_row(n, &[50]) }).collect();
    put_all(&store, rows.clone()).await;
    let changed = next(&rows[1]);
    store.commit(vec![replace(changed.clone()), delete(&rows[2])]).await.unwrap();
    let rewrapped: Vec<_> = (0..4).map(|n| (key(n), 1, sealed(2, b"new"))).collect();
    store.reseal(rewrapped).await.unwrap();
    let expected = Row { sealed: sealed(2, b"new"), ..rows[0].clone() };
    assert_eq!(store.get(key(0)).await.unwrap(), Some(expected));
    assert_eq!(store.get(key(1)).await.unwrap(), Some(changed), "changed meanwhile");
    assert_eq!(store.get(key(2)).await.unwrap(), None, "deleted meanwhile");
    assert_eq!(store.get(key(3)).await.unwrap(), None, "never there");
    assert_eq!(labelled(&store, 50).await, [0, 1]);
    store.reseal(vec![]).await.unwrap();
}

pub async fn rows_wrapped_by_old_terms_are_found(test: &TestStore) {
    let store = test.open().await;
    let of_term = |n: u64, term| Row { sealed: sealed(term, b""), ..row(n) };
    put_all(&store, (0..9).map(|n| of_term(n, 1 + u32::try_from(n % 3).unwrap()))).await;
    let other_kind = Row { key: RowKey { kind: Kind(1), ..key(99) }, ..of_term(99, 1) };
    put_all(&store, [other_kind.clone()]).await;
    assert_eq!(store.count_wrapped_below(1).await.unwrap(), 0);
    assert_eq!(store.count_wrapped_below(2).await.unwrap(), 4);
    assert_eq!(store.count_wrapped_below(3).await.unwrap(), 7);
    assert!(store.wrapped_below(1, None, 10).await.unwrap().is_empty());
    let all = store.wrapped_below(3, None, 10).await.unwrap();
    assert_eq!(numbers(&all), [99, 0, 1, 3, 4, 6, 7], "in the order of keys, kinds first");
    let first = store.wrapped_below(3, None, 3).await.unwrap();
    let rest = store.wrapped_below(3, first.last().map(|row| row.key), 10).await.unwrap();
    assert_eq!([first, rest].concat(), all);

    // Until nothing is left.
    let rewrapped = all.iter().map(|row| (row.key, row.rev, sealed(3, b""))).collect();
    store.reseal(rewrapped).await.unwrap();
    assert_eq!(store.count_wrapped_below(3).await.unwrap(), 0);
    assert!(store.wrapped_below(3, None, 10).await.unwrap().is_empty());
}

pub async fn a_raised_floor_refuses_older_terms_for_ever(test: &TestStore) {
    let store = test.open().await;
    put_all(&store, [Row { sealed: sealed(2, b"x"), ..row(1) }, row(2)]).await;
    let raise = |term| store.commit(vec![Change::RaiseTermFloor { term }]);
    assert_conflict!(raise(2).await);
    put_all(&store, [row(3)]).await;
    for number in [2, 3] {
        store.commit(vec![delete(&row(number))]).await.unwrap();
    }
    raise(2).await.unwrap();
    assert_conflict!(raise(3).await);
    raise(1).await.unwrap();
    assert_conflict!(store.commit(vec![insert(row(4))]).await);
    // The floor did not fall to 1.
    assert_conflict!(store.commit(vec![replace(Row { rev: 2, ..row(1) })]).await);
    assert_conflict!(store.reseal(vec![(key(1), 1, sealed(1, b"x"))]).await);
    let at_floor = Row { sealed: sealed(2, b"y"), ..row(5) };
    store.commit(vec![insert(at_floor)]).await.unwrap();
    store.reseal(vec![(key(1), 1, sealed(3, b"x"))]).await.unwrap();
    assert_eq!(store.get(key(1)).await.unwrap().unwrap().sealed.term(), 3);
}

pub async fn nothing_slips_under_a_floor_that_is_being_raised(test: &TestStore) {
    let store = test.open().await;
    for round in 0..20u32 {
        let (old, new) = (round + 1, round + 2);
        let base = u64::from(round) * 100;
        let writers: Vec<_> = (0..8)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(async move {
                    let row = Row { sealed: sealed(old, b"old"), ..row(base + n) };
                    store.commit(vec![insert(row)]).await.is_ok()
                })
            })
            .collect();
        let raised = store.commit(vec![Change::RaiseTermFloor { term: new }]).await.is_ok();
        let mut written = 0;
        for writer in writers {
            written += u64::from(writer.await.unwrap());
        }
        assert_eq!(store.count_wrapped_below(new).await.unwrap(), written);
        assert!(!raised || written == 0, "{written} rows are below a raised floor");
        for n in 0..8 {
            let _ = store.commit(vec![delete(&row(base + n))]).await;
        }
    }
}

pub async fn metadata_is_compared_and_set(test: &TestStore) {
    let store = test.open().await;
    let put = async |value: Option<&[u8]>, expect: Option<Option<&[u8]>>| {
        let value = value.map(<[u8]>::to_vec);
        let expect = expect.map(|expected| expected.map(<[u8]>::to_vec));
        store.commit(vec![Change::PutMeta { name: "seal", value, expect }]).await
    };
    assert_eq!(store.meta("seal").await.unwrap(), None);
    assert_conflict!(put(Some(b"a"), Some(Some(b"x"))).await);
    put(Some(b"a"), Some(None)).await.unwrap();
    assert_conflict!(put(Some(b"b"), Some(None)).await);
    assert_conflict!(put(Some(b"b"), Some(Some(b"x"))).await);
    assert_eq!(store.meta("seal").await.unwrap().as_deref(), Some(&b"a"[..]));
    put(Some(b"b"), Some(Some(b"a"))).await.unwrap();
    put(Some(b""), None).await.unwrap();
    assert_eq!(store.meta("seal").await.unwrap().as_deref(), Some(&b""[..]), "empty, not absent");
    assert_eq!(store.meta("other").await.unwrap(), None);
    put(None, Some(Some(b""))).await.unwrap();
    assert_eq!(store.meta("seal").await.unwrap(), None);
    put(None, None).await.unwrap();

    // Two that both saw nothing: one of them wins.
    let results = join_all((0..16u8).map(|n| {
        let store = store.clone();
        let change = Change::PutMeta { name: "seal", value: Some(vec![n]), expect: Some(None) };
        tokio::spawn(async move { store.commit(vec![change]).await })
    }))
    .await;
    let won: Vec<_> = (0u8..).zip(results).filter(|(_, r)| matches!(r, Ok(Ok(_)))).collect();
    assert_eq!(won.len(), 1, "{won:?}");
    assert_eq!(store.meta("seal").await.unwrap(), Some(vec![won[0].0]));
}

pub async fn the_sequence_never_falls(test: &TestStore) {
    let store = test.open().await;
    let start = store.sequence().await.unwrap();
    let first = store.commit(vec![insert(row(1))]).await.unwrap().sequence;
    let second = store.commit(vec![insert(row(2))]).await.unwrap().sequence;
    assert!(start < first && first < second, "{start} {first} {second}");
    assert_eq!(store.sequence().await.unwrap(), second);
    assert_conflict!(store.commit(vec![insert(row(2))]).await);
    assert!(store.sequence().await.unwrap() >= second);
    let parallel = join_all((10..30u64).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.commit(vec![insert(row(n))]).await.unwrap().sequence })
    }))
    .await;
    let highest = parallel.into_iter().map(Result::unwrap).max().unwrap();
    assert!(highest > second);
    assert!(store.sequence().await.unwrap() >= highest);
    store.close().await;
    let store = test.open().await;
    assert!(store.sequence().await.unwrap() >= highest);
}

pub async fn reopening_keeps_everything(test: &TestStore) {
    let store = test.open().await;
    let kept = Row { due_at: Some(at(77)), ..labelled_row(1, &[50, 51]) };
    put_all(&store, [kept.clone(), row(2)]).await;
    let meta = Change::PutMeta { name: "m", value: Some(vec![1, 2, 3]), expect: None };
    store.commit(vec![meta]).await.unwrap();
    let sequence = store.sequence().await.unwrap();
    store.close().await;
    drop(store);
    let store = test.open().await;
    assert_eq!(store.get(kept.key).await.unwrap(), Some(kept));
    assert_eq!(numbers(&list(&store, None, 10).await.rows), [1, 2]);
    assert_eq!(labelled(&store, 51).await, [1]);
    assert_eq!(store.next_due(KIND).await.unwrap(), Some(at(77)));
    assert_eq!(store.meta("m").await.unwrap(), Some(vec![1, 2, 3]));
    assert!(store.sequence().await.unwrap() >= sequence);
}

pub async fn a_newer_schema_is_refused(test: &TestStore) {
    let store = test.open().await;
    put_all(&store, [row(1)]).await;
    store.close().await;
    test.tamper("INSERT INTO schema_version (version) VALUES (4711)");
    let refused = test.try_open().await.map(|_| ()).unwrap_err();
    assert!(
        matches!(refused, StorageError::NewerSchema { found: 4711, known } if known < 4711),
        "{refused:?}"
    );
    test.tamper("DELETE FROM schema_version WHERE version = 4711");
    let store = test.open().await;
    assert_eq!(store.get(key(1)).await.unwrap(), Some(row(1)), "nothing was touched");
}

pub async fn a_damaged_row_does_not_hide_its_neighbours(test: &TestStore) {
    let store = test.open().await;
    put_all(&store, (0..3).map(|n| Row { due_at: Some(at(0)), ..labelled_row(n, &[50]) })).await;
    let mut other = row(7);
    other.due_at = Some(at(1));
    put_all(&store, [other]).await;
    store.close().await;
    // The second of them loses its sealed bytes; rev 1 of all but row 7 is told apart by its due time.
    test.tamper("UPDATE record SET rev = 9 WHERE due_at = 1");
    test.tamper("UPDATE record SET sealed = substr(sealed, 1, 3) WHERE rev = 9");
    let store = test.open().await;
    assert!(matches!(store.get(key(7)).await, Err(StorageError::Corrupt(_))));
    assert_eq!(numbers(&list(&store, None, 10).await.rows), [0, 1, 2]);
    assert_eq!(store.due(KIND, at(9), 10).await.unwrap().len(), 3);
    assert_eq!(store.claim(KIND, at(9), 1, at(10), 10).await.unwrap().len(), 3);
    assert_eq!(store.count_wrapped_below(2).await.unwrap(), 4, "it still needs its key term");
}

pub async fn a_closed_store_says_so(test: &TestStore) {
    let store = test.open().await;
    let mut invalidations = store.invalidations();
    put_all(&store, [row(1)]).await;
    store.close().await;
    store.close().await;
    assert!(matches!(store.get(key(1)).await, Err(StorageError::Unavailable(_))));
    let commit = store.commit(vec![insert(row(2))]).await;
    assert!(matches!(commit, Err(StorageError::Unavailable(_))));
    // Its own changes were nothing that its own caches have to be told.
    while let Ok(told) = invalidations.try_recv() {
        assert!(matches!(told, Invalidation::Everything), "{told:?}");
    }
    assert_eq!(test.open().await.get(key(1)).await.unwrap(), Some(row(1)));
    assert!(!store.name().is_empty());
}
