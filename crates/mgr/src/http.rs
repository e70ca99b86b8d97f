//! The page that Prometheus reads: plain HTTP, one path, few connections.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

/// Readers at a time; a site has one or two.
const CONNECTIONS_MAX: usize = 16;
/// Time a reader has to say what it wants, and may be silent between two questions.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after the system refused to give a connection out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// Bytes of a request's headers.
const HEADER_BYTES_MAX: usize = 16 << 10;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Who writes the page, and gets where to put it.
pub(crate) type PageWriter = mpsc::Sender<oneshot::Sender<String>>;

/// Answers for as long as it is polled; dropped, all connections end.
pub(crate) async fn serve(listener: TcpListener, writer: PageWriter) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut readers = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let stream = tokio::select! {
            Some(_) = readers.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "no reader of metrics can be accepted for a moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let writer = writer.clone();
        readers.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let writer = writer.clone();
                async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), &writer).await) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(HEADER_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a reader of metrics went away");
            }
            drop(place);
        });
    }
}

async fn answer(method: &Method, path: &str, writer: &PageWriter) -> Response<Full<Bytes>> {
    let reads = [Method::GET, Method::HEAD].contains(method);
    let (status, kind, body) = match path {
        _ if !reads => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "Only reading is possible.\n".to_owned()),
        "/metrics" => match page(writer).await {
            Some(page) => (StatusCode::OK, OPENMETRICS, page),
            None => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, "This mgr is stopping.\n".to_owned()),
        },
        "/" => (StatusCode::OK, PLAIN, "The cluster's metrics are at /metrics.\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, PLAIN, "There is nothing here. Metrics are at /metrics.\n".to_owned()),
    };
    let response = Response::builder().status(status).header(CONTENT_TYPE, kind).header(ALLOW, "GET, HEAD");
    response.body(Full::new(Bytes::from(body))).expect("the headers are constants")
}

async fn page(writer: &PageWriter) -> Option<String> {
    let (page, written) = oneshot::channel();
    writer.send(page).await.ok()?;
    written.await.ok()
}
