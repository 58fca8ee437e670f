//! gRPC: a unary echo by tonic over HTTP/2 without TLS, one thread a side (`current_thread`), without a router.

use crate::Error;
use crate::areas::fabric::sample::Laps;
use crate::areas::fabric::side::{finished, serving, warm};
use bytes::Bytes;
use futures_util::future::try_join_all;
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::rc::Rc;
use std::task::{Context, Poll};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// Bytes of the payload.
const BYTES: usize = 64;
/// Calls before the clock starts.
const WARM_UP: usize = 2_000;
const PATH: &str = "/bench.Echo/Echo";

#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    bytes: Bytes,
}

#[derive(Clone, Copy)]
struct Echo;

impl tonic::server::UnaryService<Payload> for Echo {
    type Response = Payload;
    type Future = Ready<Result<Response<Payload>, Status>>;

    fn call(&mut self, request: Request<Payload>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

impl Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async { Ok(tonic::server::Grpc::new(ProstCodec::default()).unary(Echo, request).await) })
    }
}

/// Serves the echo.
pub fn serve() -> Result<(), Error> {
    runtime()?.block_on(async {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?.with_nodelay(Some(true));
        serving(&incoming.local_addr()?.to_string())?;
        Ok(Server::builder().serve_with_incoming(Echo, incoming).await?)
    })
}

/// Calls `count` times, `outstanding` of them at once.
pub fn drive(count: usize, outstanding: usize, at: &str) -> Result<(), Error> {
    runtime()?.block_on(async {
        let channel = Channel::from_shared(format!("http://{at}"))?.tcp_nodelay(true).connect().await?;
        calls(&channel, WARM_UP, outstanding).await?;
        let before = warm()?;
        let laps = calls(&channel, count, outstanding).await?;
        finished(laps.sample()?, &before)
    })
}

async fn calls(channel: &Channel, count: usize, outstanding: usize) -> Result<Laps, Error> {
    let laps = Rc::new(RefCell::new(Laps::start(count, 1)));
    let payload = Bytes::from_static(&[7; BYTES]);
    let loops = (0..outstanding).map(|_| {
        let (laps, payload) = (laps.clone(), payload.clone());
        let mut client = tonic::client::Grpc::new(channel.clone());
        async move {
            for _ in 0..count / outstanding {
                client.ready().await?;
                let request = Request::new(Payload { bytes: payload.clone() });
                let path = http::uri::PathAndQuery::from_static(PATH);
                let codec = ProstCodec::<Payload, Payload>::default();
                let reply: Response<Payload> = client.unary(request, path, codec).await?;
                assert_eq!(reply.into_inner().bytes.len(), BYTES, "an echo is as long");
                laps.borrow_mut().lap();
            }
            Ok::<(), Error>(())
        }
    });
    try_join_all(loops).await?;
    Ok(Rc::into_inner(laps).ok_or("a loop still runs")?.into_inner())
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
