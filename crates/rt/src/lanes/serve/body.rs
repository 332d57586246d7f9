//! The body of a request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use hyper::body::{Body as HttpBody, Frame};
use tonic::body::Body;

struct Received {
    /// Was taken out of the stream already.
    first: Option<Bytes>,
    stream: RecvStream,
}

/// What a peer sends, as services read it: what was taken out of its stream, and the rest of that.
pub(super) fn received(first: Option<Bytes>, stream: RecvStream) -> Body {
    Body::new(Received { first, stream })
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let stream = &mut self.stream;
        match ready!(stream.poll_data(context)) {
            Some(Ok(data)) => {
                // Whoever reads the body makes room for more of it. Fails only for more than came.
                let _ = stream.flow_control().release_capacity(data.len());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            // The peer has said all that it wants to say.
            Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                let trailers = ready!(stream.poll_trailers(context))?;
                Poll::Ready(trailers.map(|it| Ok(Frame::trailers(it))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.stream.is_end_stream()
    }
}
