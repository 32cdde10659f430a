//! Pictures that somebody else brings.

use super::{Open, Source};
use crate::serve::lock::locked;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Where they are put; one that nobody took gives way to the next.
#[derive(Default)]
pub struct Inlet {
    newest: Mutex<Option<Vec<u8>>>,
    came: Condvar,
}

impl Inlet {
    /// Brings a picture.
    pub fn put(&self, picture: Vec<u8>) {
        *locked(&self.newest) = Some(picture);
        self.came.notify_one();
    }
}

struct Brought(Arc<Inlet>);

impl Source for Brought {
    fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        let empty = locked(&self.0.newest);
        let mut newest =
            self.0.came.wait_while(empty, |newest| newest.is_none()).unwrap_or_else(PoisonError::into_inner);
        Ok(newest.take().unwrap_or_default())
    }
}

/// A camera whose pictures are brought.
pub fn of_inlet(inlet: Arc<Inlet>) -> Open {
    Box::new(move || Ok(Box::new(Brought(inlet.clone()))))
}
