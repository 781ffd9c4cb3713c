//! Killed before and after every single commit of a string of errands that touches everything.

use super::World;
use super::clerk::{BRIEF, Clerk, Desk, LONG, Lost};

/// Kills between two times that everything is left to settle.
const SETTLED_EVERY: usize = 8;
/// More commits than the errands have.
const COMMITS_MAX: usize = 200;

pub async fn run_errands(clerk: &mut Clerk, world: &World) -> Result<(), Lost> {
    let desk = Desk::at(&world.nodes[0]);
    for _ in 0..2 {
        clerk.write_secret(&desk, 0).await?;
        clerk.write_policy(&desk, 0).await?;
    }
    clerk.make_token(world, &desk).await?;
    let token = clerk.tokens.len() - 1;
    let first = clerk.credentials.len();
    clerk.lease(world, &desk, LONG, None, false).await?;
    clerk.renew(world, &desk, first).await?;
    clerk.lease(world, &desk, LONG, Some(token), false).await?;
    clerk.lease(world, &desk, LONG, None, true).await?;
    clerk.lease(world, &desk, BRIEF, None, false).await?;
    clerk.revoke_token(&desk, token).await?;
    clerk.revoke(world, &desk, first, false).await?;
    clerk.revoke(world, &desk, first + 2, true).await
}

async fn killed_at_every(point: &str) {
    let world = World::on_sqlite().await;
    let mut clerks = [Clerk::new("errand")];
    let node = &world.nodes[0];
    for nth in 1..=COMMITS_MAX {
        node.set_clock_ahead(world.ahead());
        node.start_again_at(Some(&format!("{point}:{nth}")));
        let done = node.try_unseal(&node.keys()[0]).await
            && run_errands(&mut clerks[0], &world).await.is_ok();
        if done {
            assert!(nth > 20, "{nth}: the errands have more commits than that");
            node.kill();
        } else {
            let ended = node.wait_for_end();
            assert!(super::was_killed(ended), "{point}:{nth}: {ended}");
        }
        world.revive(0).await;
        world.check(0, &mut clerks, false).await;
        if done || nth % SETTLED_EVERY == 0 {
            world.pass_time().await;
            world.check(0, &mut clerks, true).await;
        }
        if done {
            return;
        }
    }
    panic!("the errands never came to an end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_left_whichever_commit_is_the_last() {
    killed_at_every("records.before_commit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_left_whichever_commit_is_not_heard_of() {
    killed_at_every("records.after_commit").await;
}
