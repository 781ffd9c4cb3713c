//! Stands for `crate::core`.

pub mod audit {
    use std::time::Duration;

    use loom::thread::{ThreadId, current};
    use tokio::sync::oneshot;

    use crate::types::time;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Turn {
        Taken,
        Yours,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum SinkError {
        Write,
        Closed,
    }

    /// Who wrote an entry, or why nobody did.
    pub type Answer = Result<ThreadId, SinkError>;

    /// An entry; like the real one, it is refused when it is dropped.
    pub struct PreparedEntry {
        pub id: u32,
        done: Option<oneshot::Sender<Answer>>,
        submitted: Duration,
    }

    impl PreparedEntry {
        pub fn new(id: u32) -> (Self, oneshot::Receiver<Answer>) {
            let (done, answer) = oneshot::channel();
            (Self { id, done: Some(done), submitted: time::now() }, answer)
        }

        pub fn submitted(&self) -> Duration {
            self.submitted
        }

        pub fn accept(mut self) {
            self.settle(Ok(current().id()));
        }

        pub fn refuse(mut self, error: SinkError) {
            self.settle(Err(error));
        }

        fn settle(&mut self, answer: Answer) {
            if let Some(done) = self.done.take() {
                let _ = done.send(answer);
            }
        }
    }

    impl Drop for PreparedEntry {
        fn drop(&mut self) {
            self.settle(Err(SinkError::Closed));
        }
    }
}
