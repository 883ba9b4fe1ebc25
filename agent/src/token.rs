//! What a node's control port may want to see.

use std::{fs, io, path::PathBuf, str::FromStr};

use http::HeaderValue;

/// A token as the `Authorization` header has it.
#[derive(Debug, Clone)]
pub(crate) struct Token(HeaderValue);

/// Why there is no token in a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// The file cannot be read.
    #[error("read the token file {}", path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It has something else.
    #[error("read the token file {}: it has no token", path.display())]
    NoToken {
        /// Which one.
        path: PathBuf,
    },
}

impl Token {
    /// The token in a file, without the spaces around it.
    ///
    /// # Errors
    /// When it cannot be read or has none.
    pub(crate) fn read(path: &PathBuf) -> Result<Token, TokenError> {
        match fs::read_to_string(path) {
            Ok(text) => text.parse().map_err(|()| TokenError::NoToken { path: path.clone() }),
            Err(source) => Err(TokenError::Unreadable { path: path.clone(), source }),
        }
    }

    /// As a header.
    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl FromStr for Token {
    type Err = ();

    fn from_str(text: &str) -> Result<Token, ()> {
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(());
        }
        let mut header = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ())?;
        header.set_sensitive(true);
        Ok(Token(header))
    }
}
