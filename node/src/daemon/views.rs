//! The service `views` of the admin socket: the present view at once, then each newer one as soon as this node knows it.
//!
//! Invariant: epochs only grow on one connection; a client that reads slowly misses views, never the newest.

use super::table;
use admin::wire::Answer;
use base::encode_frame;
use membership::View;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

/// Tells the views to whoever is at the other end, until that goes or there are no more views. `local` is this node's number.
pub async fn tell(mut stream: UnixStream, mut views: watch::Receiver<Arc<View>>, local: u32) {
    let mut nothing = [0];
    loop {
        let view = Some(table::view(&views.borrow_and_update()));
        let frame = encode_frame(&Answer { view, local, ..Answer::default() });
        if stream.write_all(&frame).await.is_err() {
            return;
        }
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            // Nothing is ever sent this way: whatever arrives is the end.
            _ = stream.read(&mut nothing) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::server::next_frame;
    use base::FrameReader;

    fn view(epoch: u64) -> Arc<View> {
        Arc::new(View { epoch, ..View::default() })
    }

    #[tokio::test]
    async fn the_present_view_and_every_newer_one_are_told_until_the_client_goes() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let (out, views) = watch::channel(view(3));
        let told = tokio::spawn(tell(server, views, 7));
        let mut reader = FrameReader::default();
        for epoch in [3, 4, 9] {
            if epoch > 3 {
                out.send_replace(view(epoch));
            }
            let answer: Answer = next_frame(&mut client, &mut reader).await.unwrap().unwrap();
            assert_eq!((answer.view.unwrap().epoch, answer.local), (epoch, 7));
        }
        drop(client);
        told.await.unwrap();
        assert!(out.is_closed());
    }

    #[tokio::test]
    async fn it_ends_with_the_membership() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let (out, views) = watch::channel(view(1));
        let told = tokio::spawn(tell(server, views, 1));
        let mut reader = FrameReader::default();
        assert!(next_frame::<Answer>(&mut client, &mut reader).await.unwrap().is_some());
        drop(out);
        assert!(next_frame::<Answer>(&mut client, &mut reader).await.unwrap().is_none());
        told.await.unwrap();
    }
}
