//! One download of a file at a time, whichever process it is in.

use super::Error;
use same_file::Handle;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a waiting process looks whether the other is done.
const LOOK: Duration = Duration::from_millis(100);

/// A lock on a file that goes when the lock does. The system gives it up if the process dies.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lock, or says that it waits, and waits.
    pub(super) async fn acquire(path: &Path, waiting: impl Fn()) -> Result<Self, Error> {
        loop {
            if let Some(lock) = Self::attempt(path).map_err(Error::disk(path))? {
                return Ok(lock);
            }
            waiting();
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Takes the lock, unless somebody has it.
    pub(super) fn attempt(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Its last holder may have removed it between the two calls: then it locks nothing.
        let is_there = match Handle::from_path(path) {
            Ok(there) => there == Handle::from_file(file.try_clone()?)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        Ok(is_there.then(|| Self {
            path: path.to_owned(),
            _file: file,
        }))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is held; if it cannot be removed, it is there for the next one.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn one_holds_it_at_a_time_although_it_comes_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let holders = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (path, holders) = (path.clone(), holders.clone());
                tokio::spawn(async move {
                    for _ in 0..50 {
                        let lock = loop {
                            match Lock::attempt(&path).unwrap() {
                                Some(lock) => break lock,
                                None => tokio::task::yield_now().await,
                            }
                        };
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                        tokio::task::yield_now().await;
                        assert_eq!(holders.fetch_sub(1, Ordering::SeqCst), 1);
                        drop(lock);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(!path.exists());
    }
}
