//! The key file: the cluster's key, and while it is being changed the one before or after it.
//!
//! ```text
//!  64 hexadecimal digits              the key that this node proves
//!  next 64 hexadecimal digits         it takes this one too, and will prove it
//!  former 64 hexadecimal digits       it takes this one still
//! ```
//!
//! Invariant: the file is replaced whole or not at all, so a daemon that starts in the middle of a change finds one of its steps.

use super::StateDir;
use crate::error::Error;
use fabric::{ClusterKey, Keys};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What a key file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRing {
    /// The key that this node proves.
    pub current: ClusterKey,
    /// The key that the cluster is about to have.
    pub next: Option<ClusterKey>,
    /// The key that the cluster had.
    pub former: Option<ClusterKey>,
}

/// How far a node is with a change of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It takes the new key from others.
    Take,
    /// It proves the new key, and takes the former one still.
    Prove,
    /// It has only the new key.
    Finish,
}

impl KeyRing {
    /// One key.
    pub fn one(current: ClusterKey) -> KeyRing {
        KeyRing { current, next: None, former: None }
    }

    /// All keys of it, as the fabric wants them.
    pub fn keys(&self) -> Keys {
        let also = self.next.iter().chain(&self.former).cloned().collect();
        Keys { also, ..Keys::one(self.current.clone()) }
    }

    /// The key that a change under way leads to.
    pub fn target(&self) -> Option<&ClusterKey> {
        self.next.as_ref().or(self.former.as_ref().map(|_| &self.current))
    }

    /// What it says after this step towards `key`. A step that is behind it changes nothing.
    ///
    /// # Errors
    /// Another change is under way.
    pub fn after(&self, step: Step, key: &ClusterKey) -> Result<KeyRing, Error> {
        if self.target().is_some_and(|target| target != key) {
            return Err(Error::Said(
                "another change of the key is under way: `ssi cluster rekey` completes it".into(),
            ));
        }
        let there = self.current == *key;
        Ok(match step {
            Step::Take if there => self.clone(),
            Step::Take => KeyRing { next: Some(key.clone()), ..KeyRing::one(self.current.clone()) },
            Step::Prove if there => self.clone(),
            Step::Prove => KeyRing { former: Some(self.current.clone()), ..KeyRing::one(key.clone()) },
            Step::Finish => KeyRing::one(key.clone()),
        })
    }

    /// Reads the text of a key file.
    ///
    /// # Errors
    /// What is wrong with it; it is never quoted.
    pub fn parse(text: &str) -> Result<KeyRing, String> {
        let mut lines = text.trim().lines();
        let key = |text: &str| ClusterKey::parse(text).map_err(|error| error.to_string());
        let mut ring = KeyRing::one(key(lines.next().unwrap_or_default())?);
        for line in lines.filter(|line| !line.trim().is_empty()) {
            match line.split_once(' ') {
                Some(("next", text)) if ring.next.is_none() => ring.next = Some(key(text)?),
                Some(("former", text)) if ring.former.is_none() => ring.former = Some(key(text)?),
                _ => return Err("a line that is neither the key, nor its next nor its former one".into()),
            }
        }
        Ok(ring)
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.current.to_hex());
        for (name, key) in [("next", &self.next), ("former", &self.former)] {
            if let Some(key) = key {
                text.push_str(&format!("{name} {}\n", key.to_hex()));
            }
        }
        text
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`Error::File`], or [`Error::Config`] if it holds no key.
    pub fn read(path: &Path) -> Result<KeyRing, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })?;
        KeyRing::parse(&text).map_err(|error| Error::Config(format!("{}: {error}", path.display())))
    }

    /// Puts it in place of the key file; readable by the owner only.
    ///
    /// # Errors
    /// [`Error::File`]; the file is as it was.
    pub fn store(&self, state: &StateDir) -> Result<(), Error> {
        let path = state.key_file();
        let beside = path.with_extension("new");
        let write = || {
            // One that a killed daemon has left may have another mode.
            let _ = std::fs::remove_file(&beside);
            let mut file =
                std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(self.text().as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)?;
            std::fs::File::open(&state.0)?.sync_all()
        };
        write().map_err(|source| Error::File { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> ClusterKey {
        ClusterKey::from_bytes([byte; 32])
    }

    #[test]
    fn the_steps_of_a_change_lead_from_one_key_to_the_other_and_may_be_repeated() {
        let old = KeyRing::one(key(1));
        let mut ring = old.clone();
        for step in [Step::Take, Step::Prove] {
            ring = ring.after(step, &key(2)).unwrap();
            assert_eq!(ring.target(), Some(&key(2)));
            assert_eq!(ring.after(step, &key(2)).unwrap(), ring);
            assert!(ring.keys().also.len() == 1 && ring.after(Step::Take, &key(3)).is_err());
        }
        assert_eq!(ring.after(Step::Take, &key(2)).unwrap(), ring, "no step back");
        ring = ring.after(Step::Finish, &key(2)).unwrap();
        assert_eq!((&ring, ring.target()), (&KeyRing::one(key(2)), None));
        assert_eq!(ring.after(Step::Finish, &key(2)).unwrap(), ring);
    }

    #[test]
    fn a_key_file_is_replaced_whole_and_read_as_it_was_written() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir(dir.path().into());
        std::fs::write(state.key_file(), format!("{}\n", key(1).to_hex())).unwrap();
        let ring = KeyRing::read(&state.key_file()).unwrap().after(Step::Prove, &key(2)).unwrap();
        ring.store(&state).unwrap();
        assert_eq!(KeyRing::read(&state.key_file()).unwrap(), ring);
        assert_eq!(std::fs::metadata(state.key_file()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_key_file_or_none(text in "(next |former )?[0-9a-f]{60,66}(\n(next |former |x)[0-9a-f]{64}){0,3}|.*") {
            if let Ok(ring) = KeyRing::parse(&text) {
                proptest::prop_assert_eq!(KeyRing::parse(&ring.text()), Ok(ring));
            }
        }
    }
}
