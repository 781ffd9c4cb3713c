//! The token that `login` leaves for the commands after it.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::error::CliError;
use crate::types::secret::SecretString;

/// `~/.leasehold-token`, readable by its owner alone.
#[derive(Debug)]
pub struct TokenFile(PathBuf);

impl TokenFile {
    /// The file in a home directory.
    pub fn in_home(home: impl AsRef<Path>) -> Self {
        Self(home.as_ref().join(".leasehold-token"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The token, or `None` when nobody logged in.
    ///
    /// # Errors
    /// A file that others can read, or that we cannot.
    pub fn load(&self) -> Result<Option<SecretString>, CliError> {
        let shown = self.0.display();
        let metadata = match std::fs::metadata(&self.0) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CliError::system(format!("cannot read {shown}"))(error)),
        };
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(CliError::local(
                format!("{shown} can be read by others"),
                format!("run: chmod 600 {shown}, and revoke the token if anybody did read it"),
            ));
        }
        let text = std::fs::read_to_string(&self.0)
            .map(SecretString::new)
            .map_err(CliError::system(format!("cannot read {shown}")))?;
        let token = text.expose().trim();
        Ok((!token.is_empty()).then(|| SecretString::new(token.to_owned())))
    }

    /// Replaces the file in one step; it is never readable by others, not even for a moment.
    ///
    /// # Errors
    /// When the home directory cannot be written.
    pub fn store(&self, token: &SecretString) -> Result<(), CliError> {
        let failed = || CliError::system(format!("cannot write {}", self.0.display()));
        let directory = self.0.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed())?;
        file.write_all(token.expose().as_bytes()).map_err(failed())?;
        file.persist(&self.0).map_err(|error| failed()(error.error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_token_comes_back_and_is_for_its_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let file = TokenFile::in_home(home.path());
        assert!(file.load().unwrap().is_none());
        for token in ["first", "second"] {
            file.store(&SecretString::new(token.to_owned())).unwrap();
            assert_eq!(file.load().unwrap().unwrap().expose(), token);
        }
        let mode = std::fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_token_that_others_can_read_is_not_used() {
        let home = tempfile::tempdir().unwrap();
        let file = TokenFile::in_home(home.path());
        std::fs::write(file.path(), "token").unwrap();
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o640)).unwrap();
        assert!(file.load().unwrap_err().hint().contains("chmod 600"));
    }
}
