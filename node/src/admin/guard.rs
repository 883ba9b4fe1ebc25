//! Whom the control port listens to.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq as _;
use tracing::warn;

use super::refusal::Refusal;
use crate::blocking;

/// A token that is shorter can be guessed ..
const TOKEN_BYTES_MIN: usize = 16;
/// .. and a file that has a longer one is some other file.
const TOKEN_BYTES_MAX: usize = 256;

/// Whom the control port listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Whoever reaches it, which only this machine's own programs can; but no web page that
    /// one of them shows.
    Machine,
    /// Whoever sends the token that is in this file at the moment.
    Token(Arc<Path>),
}

/// Why a file has no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("control token file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It has something else.
    #[error(
        "control token file {}: write one token of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} letters, \
         digits and signs, without spaces",
        path.display()
    )]
    NoToken {
        /// The file.
        path: PathBuf,
    },
}

/// What a client proves by that it may change something.
struct Token(Vec<u8>);

/// Why a client is not listened to.
enum Denied {
    NoToken,
    WrongToken,
    WebPage,
    Unknown,
}

impl Guard {
    /// Of a port that wants the token in this file, or of one that needs none.
    pub fn new(token_file: Option<&Path>) -> Guard {
        token_file.map_or(Guard::Machine, |path| Guard::Token(path.into()))
    }

    /// Checks that clients can be told apart now.
    ///
    /// # Errors
    /// When there is no token in the file.
    pub fn check(&self) -> Result<(), TokenError> {
        match self {
            Guard::Machine => Ok(()),
            Guard::Token(path) => Token::read(path).map(drop),
        }
    }

    /// Whether whoever sends these headers is listened to; else what to answer. The file is
    /// read each time: a token that is replaced is worth nothing from then on.
    pub(super) async fn admit(&self, headers: &HeaderMap) -> Result<(), Response> {
        let admitted = match self {
            // A browser adds it to whatever a page sends that changes something.
            Guard::Machine if headers.contains_key(header::ORIGIN) => Err(Denied::WebPage),
            Guard::Machine => Ok(()),
            Guard::Token(path) => admit_token(path, headers).await,
        };
        admitted.map_err(IntoResponse::into_response)
    }
}

async fn admit_token(path: &Arc<Path>, headers: &HeaderMap) -> Result<(), Denied> {
    let sent = bearer(headers).ok_or(Denied::NoToken)?;
    let path = Arc::clone(path);
    let token = match blocking::run(move || Token::read(&path)).await {
        Ok(Ok(token)) => token,
        Ok(Err(error)) => {
            warn!(%error, "nothing is taken on the control port");
            return Err(Denied::Unknown);
        }
        Err(blocking::Interrupted) => return Err(Denied::Unknown),
    };
    if token.is(sent) { Ok(()) } else { Err(Denied::WrongToken) }
}

/// What `Authorization: Bearer ..` says.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

impl Token {
    /// The token in a file, without the spaces around it.
    fn read(path: &Path) -> Result<Token, TokenError> {
        let unreadable = |source| TokenError::Unreadable { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let mut text = Vec::new();
        // As much as a token with a line's end, or two, may have, and one byte more.
        file.take(TOKEN_BYTES_MAX as u64 + 5).read_to_end(&mut text).map_err(unreadable)?;
        let token = text.trim_ascii();
        let is_token = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len())
            && token.iter().all(u8::is_ascii_graphic);
        if !is_token {
            return Err(TokenError::NoToken { path: path.to_owned() });
        }
        Ok(Token(token.to_owned()))
    }

    /// Takes as long whatever is sent, so that nobody can find it out byte by byte.
    fn is(&self, sent: &[u8]) -> bool {
        self.0.ct_eq(sent).into()
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let (status, reason) = match self {
            Denied::NoToken => (
                StatusCode::UNAUTHORIZED,
                "this port wants the token of the node's control-token-file: send it as \
                 \"Authorization: Bearer TOKEN\" (sheaf: --token-file FILE)",
            ),
            Denied::WrongToken => (
                StatusCode::UNAUTHORIZED,
                "the token is not the one in the node's control-token-file",
            ),
            Denied::WebPage => {
                (StatusCode::FORBIDDEN, "web pages are not listened to: this has an Origin")
            }
            Denied::Unknown => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the node cannot read its control-token-file, so it listens to nobody",
            ),
        };
        let mut answer = Refusal { status, reason: reason.to_owned() }.into_response();
        let challenge = match self {
            Denied::NoToken => "Bearer",
            Denied::WrongToken => "Bearer error=\"invalid_token\"",
            Denied::WebPage | Denied::Unknown => return answer,
        };
        let challenge = HeaderValue::from_static(challenge);
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn file(folder: &tempfile::TempDir, text: &str) -> PathBuf {
        let path = folder.path().join("token");
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_token_is_what_a_file_has_between_spaces() {
        let folder = tempfile::tempdir().unwrap();
        let longest = "t".repeat(TOKEN_BYTES_MAX);
        for text in [TOKEN, &format!("  {TOKEN}\r\n"), &format!("{longest}\n")] {
            let read = Token::read(&file(&folder, text)).unwrap();
            assert!(read.is(text.trim().as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_file_without_a_token_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let longer = "t".repeat(TOKEN_BYTES_MAX + 1);
        let endless = "t".repeat(1 << 20);
        for text in ["", "\n", &TOKEN[1..], "two words of sixteen", "größer-als-sechzehn"]
            .into_iter()
            .chain([longer.as_str(), endless.as_str()])
        {
            let path = file(&folder, text);
            let error = Guard::new(Some(&path)).check().unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(error.contains("write one token"), "{error}");
        }
        let missing = folder.path().join("missing");
        let error = Guard::new(Some(&missing)).check().unwrap_err().to_string();
        assert!(error.contains("No such file"), "{error}");
        Guard::new(None).check().unwrap();
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = Token(TOKEN.into());
        for other in ["", "0", "0123456789abcdeF", "0123456789abcdef0", "1123456789abcdef"] {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_bearer_is_read_in_any_case() {
        let sent = |value: &str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            bearer(&headers).map(<[u8]>::to_vec)
        };
        for value in ["Bearer abc", "bearer abc", "BEARER  abc "] {
            assert_eq!(sent(value).as_deref(), Some(b"abc".as_slice()), "{value}");
        }
        for value in ["Basic abc", "Bearer", "abc", ""] {
            assert_eq!(sent(value), None, "{value}");
        }
    }
}
