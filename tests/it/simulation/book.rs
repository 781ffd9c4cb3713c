//! What clients were promised, and what they only asked for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use leasehold::types::id::LeaseId;
use leasehold::types::time::{Timestamp, Ttl};

/// One credential, from the first request for it on.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// Its lease, once that was answered.
    pub lease: Option<LeaseId>,
    /// Until when it lives at least, unless somebody ended it.
    pub lives_until: Option<Timestamp>,
    /// Until when it lives at most.
    pub over_at: Option<Timestamp>,
    /// Somebody wanted it to end.
    pub ending: bool,
    /// Somebody was told that it is dead.
    pub dead: bool,
    /// Lifetimes that were asked for and not answered yet.
    asked: Vec<Ttl>,
}

/// All credentials, by name.
#[derive(Default)]
pub struct Book {
    entries: Mutex<BTreeMap<String, Entry>>,
    /// Somebody wanted everything to end, and that may go on behind all answers, and over deaths.
    all_ending: AtomicBool,
}

impl Book {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap()
    }

    /// A copy of everything.
    pub fn entries(&self) -> BTreeMap<String, Entry> {
        self.lock().clone()
    }

    /// A new name, for which a lifetime is asked.
    pub fn asks(&self, ttl: Ttl) -> String {
        let ending = self.all_ending.load(Ordering::SeqCst);
        let mut entries = self.lock();
        let name = format!("u{}", entries.len());
        entries.insert(name.clone(), Entry { asked: vec![ttl], ending, ..Entry::default() });
        name
    }

    /// One whose lease is known, among those that nobody was told to be dead.
    pub fn pick(&self, which: usize) -> Option<(String, LeaseId)> {
        let entries = self.lock();
        let known: Vec<_> = entries
            .iter()
            .filter(|(_, entry)| !entry.dead)
            .filter_map(|(name, entry)| Some((name.clone(), entry.lease.clone()?)))
            .collect();
        let index = which.checked_rem(known.len())?;
        known.into_iter().nth(index)
    }

    /// A longer life is asked for.
    pub fn asks_more(&self, name: &str, ttl: Ttl) {
        self.change(name, |entry| entry.asked.push(ttl));
    }

    /// It was answered: it lives from `asked_at` on for `ttl`.
    pub fn lives(&self, name: &str, lease: LeaseId, asked_at: Timestamp, ttl: Ttl, now: Timestamp) {
        self.answered(name, ttl, now);
        self.change(name, |entry| {
            entry.lease = Some(lease);
            let until = asked_at.plus(ttl);
            entry.lives_until = Some(entry.lives_until.map_or(until, |known| known.max(until)));
        });
    }

    /// It was refused, or failed: it may have happened all the same.
    pub fn answered(&self, name: &str, ttl: Ttl, now: Timestamp) {
        self.change(name, |entry| {
            if let Some(at) = entry.asked.iter().position(|asked| *asked == ttl) {
                entry.asked.swap_remove(at);
            }
            let over = now.plus(ttl);
            entry.over_at = Some(entry.over_at.map_or(over, |known| known.max(over)));
        });
    }

    /// Somebody wants it to end.
    pub fn ends(&self, name: &str) {
        self.change(name, |entry| entry.ending = true);
    }

    /// Somebody wants everything to end.
    pub fn all_end(&self) {
        self.all_ending.store(true, Ordering::SeqCst);
        self.lock().values_mut().for_each(|entry| entry.ending = true);
    }

    /// It was said to be dead.
    pub fn dies(&self, name: &str) {
        self.change(name, |entry| entry.dead = true);
    }

    /// Nobody gets an answer any more.
    pub fn all_lost(&self, now: Timestamp) {
        for entry in self.lock().values_mut() {
            for ttl in std::mem::take(&mut entry.asked) {
                let over = now.plus(ttl);
                entry.over_at = Some(entry.over_at.map_or(over, |known| known.max(over)));
            }
        }
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Entry)) {
        change(self.lock().get_mut(name).unwrap());
    }
}
