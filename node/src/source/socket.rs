//! One connection's bytes: read in large pieces, and against the clock until it has opened.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_util::io::poll_read_buf;

/// How much one read may bring. HTTP/2 asks frame by frame, and grpc-go's frames
/// are 16 KiB: one read for each would cost more than all the rest.
pub(super) const READ_AHEAD_BYTES: usize = 64 << 10;
/// HTTP/2's preface has so many bytes, and no sensible HTTP/1.1 request has fewer:
/// before they are here, nothing else watches the connection.
const OPENING_BYTES: usize = 24;

/// A TCP connection that reads ahead. Its buffer exists only while there is
/// something in it, so an idle connection costs next to nothing.
pub(super) struct Socket {
    stream: TcpStream,
    ahead: BytesMut,
    opening: Option<Opening>,
}

struct Opening {
    bytes_left: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Socket {
    /// Fails its reads if the connection does not open within `head_wait`.
    pub(super) fn new(stream: TcpStream, head_wait: Duration) -> Self {
        let opening = Opening { bytes_left: OPENING_BYTES, deadline: Box::pin(sleep(head_wait)) };
        Socket { stream, ahead: BytesMut::new(), opening: Some(opening) }
    }

    fn note_opening(&mut self, bytes: usize) {
        if let Some(opening) = &mut self.opening {
            opening.bytes_left = opening.bytes_left.saturating_sub(bytes);
            if opening.bytes_left == 0 {
                self.opening = None;
            }
        }
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ahead.clear();
        self.ahead.reserve(READ_AHEAD_BYTES);
        let Poll::Ready(read) = poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.ahead)
        else {
            self.ahead = BytesMut::new();
            return Poll::Pending;
        };
        self.note_opening(read?);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(opening) = &mut self.opening
            && opening.deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.ahead.is_empty() {
            if out.remaining() >= READ_AHEAD_BYTES {
                let before = out.filled().len();
                ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
                self.note_opening(out.filled().len() - before);
                return Poll::Ready(Ok(()));
            }
            ready!(self.read_ahead(cx))?;
        }
        let taken = self.ahead.len().min(out.remaining());
        out.put_slice(&self.ahead[..taken]);
        self.ahead.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
