//! The node's small web side: `/healthz` and `/metrics`, for machines.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::node::keeper::Keeper;
use crate::thread::on_a_thread;

/// The file in the store that is written to see whether one can.
const TOUCHED: &str = "touched";

/// Listens and serves until aborted.
pub(super) async fn start(
    at: SocketAddr,
    keeper: Arc<Keeper>,
) -> Result<(SocketAddr, JoinHandle<()>)> {
    let what = || format!("binding TCP {at}");
    let listener = TcpListener::bind(at).await.map_err(Error::io(what()))?;
    let addr = listener.local_addr().map_err(Error::io(what()))?;
    let routes = Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .with_state(keeper);
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "the web side ended");
        }
    });
    Ok((addr, task))
}

async fn healthz(State(keeper): State<Arc<Keeper>>) -> impl IntoResponse {
    if *keeper.stopping.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    // A disk that is gone or read-only shows only to who writes.
    let asked = keeper.clone();
    match on_a_thread(move || asked.place.write(TOUCHED, b"")).await {
        Ok(()) => (StatusCode::OK, "ok\n"),
        Err(error) => {
            tracing::error!(%error, "not healthy");
            (StatusCode::INTERNAL_SERVER_ERROR, "the store cannot be written\n")
        }
    }
}

async fn metrics(State(keeper): State<Arc<Keeper>>) -> impl IntoResponse {
    match keeper.gauges().await {
        Ok(gauges) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            (StatusCode::OK, kind, keeper.metrics.text(&gauges)).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the store cannot be read");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
