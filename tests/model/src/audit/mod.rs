//! Who writes the audit log, and when: `src/audit/file/turns.rs`.

#[path = "../../../../src/audit/file/turns.rs"]
mod turns;
mod writer;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as Plain};
use std::time::Duration;

use loom::thread::{self, JoinHandle};

use self::turns::Turns;
use self::writer::{Disk, Seen, Writer};
use crate::core::audit::{Answer, PreparedEntry, SinkError, Turn};
use crate::orders::{self, Reached};
use crate::types::time::ScheduleClock;

/// What a request does with its turn.
#[derive(Clone, Copy)]
enum Use {
    Write,
    GiveUp,
}

/// A sink, its thread, and what was asked of it.
struct Log {
    turns: Turns,
    disk: Arc<Disk>,
    /// Counts what happens at the edges of submitting and closing.
    moments: AtomicUsize,
    told: Plain<Vec<Told>>,
}

/// What became of an entry, and when it was submitted.
struct Told {
    id: u32,
    begun: usize,
    submitted: usize,
    answer: Answer,
}

/// How an entry was written, if it was.
struct Course {
    turn: Turn,
    by_itself: bool,
    /// Its turn came to nothing, since somebody else was writing.
    outrun: bool,
    answer: Answer,
}

impl Log {
    fn open(lend: bool, seen: Seen) -> (Arc<Self>, JoinHandle<()>) {
        let disk = Disk::new(seen);
        let turns = Turns::new(Writer::new(disk.clone()), Arc::new(ScheduleClock), lend);
        let (moments, told) = (AtomicUsize::new(0), Plain::default());
        let log = Arc::new(Self { turns, disk, moments, told });
        let working = log.clone();
        (log, thread::spawn(move || working.turns.work()))
    }

    fn moment(&self) -> usize {
        self.moments.fetch_add(1, Ordering::Relaxed)
    }

    /// As the broker does: submits, uses the turn, and waits for the answer.
    fn record(&self, id: u32, usage: Use) -> Course {
        let begun = self.moment();
        let (entry, mut answer) = PreparedEntry::new(id);
        let healthy = !self.disk.seen().unhealthy;
        let turn = self.turns.submit(entry, healthy);
        let submitted = self.moment();
        let mut at_once = None;
        match (turn, usage) {
            (Turn::Taken, _) => {}
            (Turn::Yours, Use::Write) => {
                self.turns.write();
                at_once = answer.try_recv().ok();
            }
            (Turn::Yours, Use::GiveUp) => self.turns.hand_over(),
        }
        let used = turn == Turn::Yours && matches!(usage, Use::Write);
        let outrun = used && at_once.is_none();
        let wait = || orders::wait(answer).expect("an entry is answered");
        let answer = at_once.unwrap_or_else(wait);
        self.told.lock().unwrap().push(Told { id, begun, submitted, answer });
        Course { turn, by_itself: answer == Ok(thread::current().id()), outrun, answer }
    }

    /// A thread that records these entries one after the other.
    fn recording(self: &Arc<Self>, entries: &'static [(u32, Use)]) -> JoinHandle<Vec<Course>> {
        let log = self.clone();
        thread::spawn(move || entries.iter().map(|(id, usage)| log.record(*id, *usage)).collect())
    }

    /// When closing began.
    fn close(&self) -> usize {
        let begun = self.moment();
        orders::wait(self.turns.close());
        assert!(self.disk.seen().ended, "closed is the log when its writer let go of it");
        begun
    }

    /// What always holds in the end, of `count` entries. Closing began at the moment `closing`.
    fn check(&self, count: usize, closing: usize) {
        let told = self.told.lock().unwrap();
        let log = &self.disk.seen().log;
        assert_eq!(told.len(), count, "each is answered once");
        for one in told.iter() {
            let lines = log.iter().filter(|line| **line == one.id).count();
            assert_eq!(
                lines,
                usize::from(one.answer.is_ok()),
                "entry {}: {:?}",
                one.id,
                one.answer
            );
            if one.submitted < closing {
                assert_ne!(one.answer, Err(SinkError::Closed), "entry {} came in time", one.id);
            }
        }
        let place = |told: &Told| log.iter().position(|line| *line == told.id);
        for before in told.iter() {
            for after in told.iter().filter(|after| before.submitted < after.begun) {
                let (Some(one), Some(other)) = (place(before), place(after)) else { continue };
                assert!(one < other, "{} was submitted before {}", before.id, after.id);
            }
        }
    }
}

#[test]
fn each_entry_is_written_once_in_order_and_its_answer_reaches_who_waits() {
    let reached: Arc<[Reached; 4]> = Arc::default();
    let noted = reached.clone();
    orders::every("audit: three tasks", 2, false, move || {
        let (log, worker) = Log::open(true, Seen::default());
        let first = log.recording(&[(1, Use::Write), (2, Use::Write)]);
        let second = log.recording(&[(3, Use::Write)]);
        let mut courses = vec![log.record(4, Use::Write)];
        courses.extend(first.join().unwrap());
        courses.extend(second.join().unwrap());
        let closing = log.close();
        worker.join().unwrap();
        log.check(4, closing);
        for course in courses {
            assert!(course.answer.is_ok());
            let [by_itself, by_another, outrun, turned] = &*noted;
            by_itself.note(course.by_itself);
            by_another.note(course.turn == Turn::Taken && !course.by_itself);
            outrun.note(course.outrun);
            turned.note(course.turn == Turn::Yours && !course.by_itself);
        }
    });
    assert!(reached.iter().all(Reached::at_all));
}

#[test]
fn a_turn_that_is_given_up_is_used_by_somebody() {
    orders::every("audit: turns given up", 2, false, || {
        let (log, worker) = Log::open(true, Seen::default());
        let first = log.recording(&[(1, Use::GiveUp), (2, Use::Write)]);
        let second = log.recording(&[(3, Use::GiveUp)]);
        log.record(4, Use::Write);
        first.join().unwrap();
        second.join().unwrap();
        let closing = log.close();
        worker.join().unwrap();
        log.check(4, closing);
        assert_eq!(log.disk.seen().log.len(), 4);
    });
}

#[test]
fn without_lending_the_thread_writes_everything() {
    orders::every("audit: the thread alone", 2, false, || {
        let (log, worker) = Log::open(false, Seen::default());
        let first = log.recording(&[(1, Use::Write), (2, Use::Write)]);
        let second = log.recording(&[(3, Use::Write)]);
        let mut courses = first.join().unwrap();
        courses.extend(second.join().unwrap());
        assert!(courses.iter().all(|course| course.turn == Turn::Taken && !course.by_itself));
        let closing = log.close();
        worker.join().unwrap();
        log.check(3, closing);
        assert_eq!(log.disk.seen().log.len(), 3);
    });
}

#[test]
fn closing_loses_nothing_that_came_before_and_takes_nothing_after() {
    let reached: Arc<[Reached; 2]> = Arc::default();
    let noted = reached.clone();
    orders::every("audit: closing", 2, false, move || {
        let (log, worker) = Log::open(true, Seen::default());
        let first = log.recording(&[(1, Use::Write), (2, Use::GiveUp)]);
        let second = log.recording(&[(3, Use::Write)]);
        let closing = log.close();
        let lines = log.disk.seen().log.len();
        assert_eq!(log.record(4, Use::Write).answer, Err(SinkError::Closed));
        for course in first.join().unwrap().into_iter().chain(second.join().unwrap()) {
            noted[usize::from(course.answer.is_ok())].note(true);
        }
        worker.join().unwrap();
        log.check(4, closing);
        assert_eq!(log.disk.seen().log.len(), lines, "nothing is written to a log that is closed");
    });
    assert!(reached.iter().all(Reached::at_all));
}

#[test]
fn two_may_close() {
    orders::every("audit: closing twice", 3, false, || {
        let (log, worker) = Log::open(true, Seen::default());
        let other = log.clone();
        let other = thread::spawn(move || other.close());
        let request = log.recording(&[(1, Use::Write)]);
        let closing = log.close();
        let closing = other.join().unwrap().min(closing);
        request.join().unwrap();
        worker.join().unwrap();
        log.check(1, closing);
    });
}

#[test]
fn a_sink_that_is_dropped_writes_what_it_took() {
    orders::every("audit: dropped", 2, false, || {
        let (log, worker) = Log::open(true, Seen::default());
        let first = log.recording(&[(1, Use::Write), (2, Use::Write)]);
        let second = log.recording(&[(3, Use::GiveUp)]);
        let stopping = log.moment();
        log.turns.stop();
        worker.join().unwrap();
        assert!(log.disk.seen().ended);
        first.join().unwrap();
        second.join().unwrap();
        log.check(3, stopping);
    });
}

#[test]
fn the_log_is_opened_anew_between_writes() {
    orders::every("audit: reopening", 2, false, || {
        let (log, worker) = Log::open(true, Seen::default());
        let first = log.recording(&[(1, Use::Write), (2, Use::Write)]);
        let second = log.recording(&[(3, Use::GiveUp)]);
        assert_eq!(orders::wait(log.turns.reopen()), Ok(Ok(())));
        assert_eq!(log.disk.seen().reopened, 1);
        first.join().unwrap();
        second.join().unwrap();
        let closing = log.close();
        worker.join().unwrap();
        log.check(3, closing);
        assert_eq!(log.disk.seen().log.len(), 3);
    });
}

#[test]
fn reopening_is_answered_whatever_closes_meanwhile() {
    let reached: Arc<[Reached; 2]> = Arc::default();
    let noted = reached.clone();
    orders::every("audit: reopening and closing", 3, false, move || {
        let (log, worker) = Log::open(true, Seen::default());
        let reopening = log.clone();
        let reopening = thread::spawn(move || orders::wait(reopening.turns.reopen()));
        let request = log.recording(&[(1, Use::Write)]);
        let closing = log.close();
        let reopened = reopening.join().unwrap();
        request.join().unwrap();
        worker.join().unwrap();
        log.check(1, closing);
        // An answer that is dropped means closed.
        assert!(matches!(reopened, Ok(Ok(())) | Err(_)), "{reopened:?}");
        assert_eq!(log.disk.seen().reopened, usize::from(reopened.is_ok()));
        noted[usize::from(reopened.is_ok())].note(true);
    });
    assert!(reached.iter().all(Reached::at_all));
}

#[test]
fn lines_are_forced_to_the_disk_though_nobody_comes_any_more() {
    orders::every("audit: forcing", 2, true, || {
        let (log, worker) = Log::open(true, Seen::default());
        let first = log.recording(&[(1, Use::Write), (2, Use::Write)]);
        let second = log.recording(&[(3, Use::Write)]);
        first.join().unwrap();
        second.join().unwrap();
        log.disk.wait_until_forced(3);
        let closing = log.close();
        worker.join().unwrap();
        log.check(3, closing);
    });
}

#[test]
fn while_writes_are_slow_the_thread_writes() {
    let reached: Arc<Reached> = Arc::default();
    let noted = reached.clone();
    orders::every("audit: slow", 2, false, move || {
        let slowness = vec![Duration::from_millis(21)];
        let (log, worker) = Log::open(true, Seen { slowness, ..Seen::default() });
        let first = log.recording(&[(1, Use::Write), (2, Use::Write)]);
        let second = log.recording(&[(3, Use::Write)]);
        let courses = first.join().unwrap();
        second.join().unwrap();
        if courses[0].by_itself && log.disk.seen().log[0] == 1 {
            assert_eq!(courses[1].turn, Turn::Taken, "it had just been slow");
            noted.note(true);
        }
        let closing = log.close();
        worker.join().unwrap();
        log.check(3, closing);
        assert_eq!(log.disk.seen().log.len(), 3);
    });
    assert!(reached.at_all());
}

#[test]
fn a_log_that_fails_refuses_and_recovers_by_itself() {
    orders::every("audit: failing", 2, true, || {
        let (log, worker) = Log::open(true, Seen { failing: 2, ..Seen::default() });
        let first = log.recording(&[(1, Use::Write), (2, Use::Write)]);
        let second = log.recording(&[(3, Use::Write)]);
        let mut courses = first.join().unwrap();
        courses.extend(second.join().unwrap());
        assert!(courses.iter().any(|course| course.answer == Err(SinkError::Write)));
        // Whatever is written later is forced to the disk, and for that the log has to work.
        while log.disk.seen().unhealthy {
            thread::yield_now();
        }
        let closing = log.close();
        worker.join().unwrap();
        log.check(3, closing);
    });
}
