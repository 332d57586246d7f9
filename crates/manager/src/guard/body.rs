//! The body of a stream, which ends when its caller may no longer have it, or waits no longer.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::HeaderMap;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};
use tonic::body::Body;
use tonic::{Code, Status};

use super::{Watch, deadline};

pub(super) struct Watched {
    inner: Body,
    watch: Watch,
    /// Set for callers that wait for a time only, which are few.
    timer: Option<Pin<Box<Sleep>>>,
    is_over: bool,
}

impl Watched {
    pub(super) fn new(inner: Body, watch: Watch) -> Self {
        let timer = watch.deadline.map(|at| Box::pin(sleep_until(at)));
        Self {
            inner,
            watch,
            timer,
            is_over: false,
        }
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(deadline::over());
        }
        self.watch.poll_end(context)
    }

    fn end(&mut self, code: Code) {
        self.is_over = true;
        let rpcs = &self.watch.guard.inner.rpcs;
        rpcs.handled(self.watch.method, code, self.watch.took());
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(status) = self.poll_end(context) {
            self.end(status.code());
            let mut trailers = HeaderMap::new();
            // Fails only for a text that no header can hold, and then the stream just ends.
            let _ = status.add_header(&mut trailers);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let code = Status::from_header_map(trailers);
                    self.end(code.map_or(Code::Unknown, |status| status.code()));
                }
            }
            Poll::Ready(Some(Err(_)) | None) => self.end(Code::Unknown),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.is_over {
            // The caller went away.
            self.end(Code::Cancelled);
        }
    }
}
