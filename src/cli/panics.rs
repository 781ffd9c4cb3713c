//! What is said of a panic: where it was, and no value.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{Write, stderr};
use std::panic::Location;

/// From now on a panic writes one line to standard error that holds no value, and below it what
/// led there where `RUST_BACKTRACE` asks for that.
///
/// The message that Rust would print is often made of what could not be handled: an error that
/// quotes its input, the text that was cut in the wrong place. Only one that was written down in the
/// source as it is can be shown.
pub(super) fn show_no_values() {
    std::panic::set_hook(Box::new(|panic| {
        let led = Backtrace::capture();
        let said = said(std::thread::current().name(), panic.location(), panic.payload(), &led);
        // Without standard error there is nobody to tell.
        let _ = stderr().lock().write_all(said.as_bytes());
    }));
}

fn said(
    thread: Option<&str>,
    location: Option<&Location<'_>>,
    payload: &(dyn Any + Send),
    led: &Backtrace,
) -> String {
    let thread = thread.unwrap_or("without a name");
    let place = location.map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let message =
        payload.downcast_ref::<&'static str>().unwrap_or(&"a message with values, not shown");
    let mut said = format!("leasehold: thread {thread} panicked at {place}: {message}\n");
    if led.status() == BacktraceStatus::Captured {
        said += &led.to_string();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(payload: &(dyn Any + Send)) -> String {
        said(Some("worker"), Some(Location::caller()), payload, &Backtrace::disabled())
    }

    #[test]
    fn a_message_is_shown_only_when_it_was_written_so() {
        let shown = of(&"a promise was broken");
        assert!(shown.starts_with("leasehold: thread worker panicked at src/cli/panics.rs:"));
        assert!(shown.ends_with(": a promise was broken\n"), "{shown}");
        for payload in [&"hunter2-hunter2".to_owned() as &(dyn Any + Send), &7_u8] {
            let shown = of(payload);
            assert!(shown.ends_with(": a message with values, not shown\n"), "{shown}");
        }
        let nowhere = said(None, None, &"over", &Backtrace::disabled());
        assert_eq!(
            nowhere,
            "leasehold: thread without a name panicked at an unknown place: over\n"
        );
    }

    /// What the standard library does with the messages that it makes itself.
    #[test]
    fn messages_of_the_library_that_quote_something_are_made_of_values() {
        let secret = std::hint::black_box("hunter2-hunter2");
        let quoting: [Box<dyn Fn() + std::panic::UnwindSafe + std::panic::RefUnwindSafe>; 3] = [
            Box::new(move || std::hint::black_box(Err::<(), _>(secret)).unwrap()),
            Box::new(move || assert_eq!(secret, "other")),
            Box::new(move || assert!(secret.split_at(secret.len() + 1).0.is_empty())),
        ];
        for quotes in quoting {
            let payload = std::panic::catch_unwind(quotes).unwrap_err();
            assert!(!of(&*payload).contains("hunter2"), "{}", of(&*payload));
        }
    }
}
