//! What is small, asked at every turn and seldom changed: kept whole in memory, and loaded anew after
//! a change.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::error::CoreError;

struct Held<T> {
    generation: u64,
    value: Option<Arc<T>>,
}

/// A value as it was loaded since it was last said to have changed.
pub(in crate::core) struct Snapshot<T>(Mutex<Held<T>>);

impl<T> Default for Snapshot<T> {
    fn default() -> Self {
        Self(Mutex::new(Held { generation: 0, value: None }))
    }
}

impl<T> Snapshot<T> {
    /// The value; loaded when there is none. One that was loaded while it changed is not kept.
    pub(in crate::core) async fn get(
        &self,
        load: impl Future<Output = Result<T, CoreError>>,
    ) -> Result<Arc<T>, CoreError> {
        let generation = {
            let held = self.held();
            if let Some(value) = &held.value {
                return Ok(value.clone());
            }
            held.generation
        };
        let value = Arc::new(load.await?);
        let mut held = self.held();
        if held.generation == generation {
            held.value = Some(value.clone());
        }
        Ok(value)
    }

    /// It has changed, here or on another node.
    pub(in crate::core) fn forget(&self) {
        let mut held = self.held();
        held.generation = held.generation.wrapping_add(1);
        held.value = None;
    }

    fn held(&self) -> MutexGuard<'_, Held<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_loaded_while_it_changed_is_not_kept() {
        let snapshot = Snapshot::default();
        let meanwhile = snapshot.get(async {
            snapshot.forget();
            Ok(1)
        });
        assert_eq!(*meanwhile.await.unwrap(), 1);
        assert_eq!(*snapshot.get(async { Ok(2) }).await.unwrap(), 2);
        assert_eq!(*snapshot.get(async { Ok(3) }).await.unwrap(), 2);
        snapshot.forget();
        assert_eq!(*snapshot.get(async { Ok(4) }).await.unwrap(), 4);
    }
}
