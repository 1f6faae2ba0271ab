//! Strike: how each kind of fault is made.

use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::{Signal, kill_process};
use tokio::time::sleep;

use super::{Aim, Kind, RECOVERY_TIME, Struck, bits};
use crate::arena::{Arena, Illness, Link};
use crate::history::NodeId;

/// Error numbers of Linux: input/output error, no space left.
const EIO: i64 = 5;
const ENOSPC: i64 = 28;
const HOUR_S: i64 = 3600;
/// How a starved node gets its processor: so long of so long.
const FED: Duration = Duration::from_millis(20);
const UNFED: Duration = Duration::from_millis(80);
/// Where nodes dial each other, in namespaces.
const PEER_PORT: i64 = 3300;

/// One fault about to happen.
pub(super) struct Strike<'a> {
    pub(super) arena: &'a mut Arena,
    pub(super) kind: &'static Kind,
    pub(super) aim: Aim,
}

impl Strike<'_> {
    pub(super) async fn strike(mut self) -> Result<Struck> {
        let leader = self.aim.leader;
        match self.kind.name {
            "kill-follower" => self.kill_one_of(&self.others()),
            "kill-leader" => self.kill_one_of(&[leader]),
            "kill-majority" => self.kill(self.others()),
            "kill-all" => self.kill(self.arena.ids()),
            "pause-leader" => self.pause(leader),
            "rolling-restart" => self.rolling_restart().await,
            "restart-leader" => self.restart(leader).await,
            "empty-disk" => self.empty_disk(),
            "flip-wal" => self.flip("raft/log", true),
            "flip-checkpoint" => self.flip("raft/checkpoints", false),
            "flip-store" => self.flip("raft/store", false),
            "sync-error" => self.ill(Illness::SyncFails, EIO, "every sync fails"),
            "write-error" => self.ill(Illness::WriteFails, ENOSPC, "no write finds room"),
            "slow-sync" => {
                let us = self.aim.dice.between(20_000, 300_000).cast_signed();
                self.ill(Illness::SyncIsSlow, us, &format!("a sync takes {} ms longer", us / 1000))
            }
            "clock-ahead" => self.ill(Illness::ClockIsOff, HOUR_S, "the clock is an hour ahead"),
            "clock-behind" => self.ill(Illness::ClockIsOff, -HOUR_S, "the clock is an hour behind"),
            "memory-kill" => self.memory(),
            "starve" => self.starve(),
            "checkpoint-cut" => self.checkpoint_cut().await,
            "disk-full" => self.disk_full(),
            "power-one" => {
                let node = self.any();
                self.power(vec![node])
            }
            "power-all" => self.power(self.arena.ids()),
            name => self.wires(name),
        }
    }

    fn struck(&self, nodes: Vec<NodeId>, words: String) -> Struck {
        Struck { kind: self.kind, nodes, words, minority: Vec::new(), duty: None }
    }

    fn others(&self) -> Vec<NodeId> {
        self.arena.ids().into_iter().filter(|node| *node != self.aim.leader).collect()
    }

    /// The leader in half of all cases: most goes wrong there.
    fn any(&mut self) -> NodeId {
        if self.aim.dice.percent(50) {
            self.aim.leader
        } else {
            *self.aim.dice.pick(&self.arena.ids())
        }
    }

    fn kill_one_of(&mut self, nodes: &[NodeId]) -> Result<Struck> {
        let node = *self.aim.dice.pick(nodes);
        self.kill(vec![node])
    }

    fn kill(&mut self, nodes: Vec<NodeId>) -> Result<Struck> {
        for node in &nodes {
            self.arena.member(*node).kill()?;
        }
        Ok(self.struck(nodes.clone(), format!("killed {nodes:?}")))
    }

    fn pause(&mut self, node: NodeId) -> Result<Struck> {
        self.arena.member(node).signal(Signal::STOP)?;
        Ok(self.struck(vec![node], format!("paused {node}")))
    }

    async fn restart(&mut self, node: NodeId) -> Result<Struck> {
        self.arena.member(node).stop().await?;
        Ok(self.struck(vec![node], format!("stopped {node} well")))
    }

    async fn rolling_restart(&mut self) -> Result<Struck> {
        for node in self.arena.ids() {
            self.arena.member(node).stop().await?;
            self.arena.member(node).start()?;
            self.arena.wait_until_ready(RECOVERY_TIME).await?;
        }
        Ok(self.struck(self.arena.ids(), "each node was stopped and started".to_owned()))
    }

    fn empty_disk(&mut self) -> Result<Struck> {
        let node = self.any();
        self.arena.member(node).kill()?;
        self.arena.member(node).forget_everything()?;
        Ok(self.struck(vec![node], format!("killed {node} and emptied its disk")))
    }

    fn flip(&mut self, what: &str, spare_the_end: bool) -> Result<Struck> {
        let node = self.any();
        self.arena.member(node).kill()?;
        let data = self.arena.member(node).data.clone();
        let words = bits::flip(&data.join(what), spare_the_end, &mut self.aim.dice)?;
        Ok(self.struck(vec![node], format!("killed {node} and flipped {words}")))
    }

    fn ill(&mut self, illness: Illness, number: i64, words: &str) -> Result<Struck> {
        let node = self.any();
        self.arena.member(node).suffer(illness, number)?;
        Ok(self.struck(vec![node], format!("on {node} {words}")))
    }

    fn memory(&mut self) -> Result<Struck> {
        let node = self.any();
        self.arena.member(node).starve_of_memory()?;
        Ok(self.struck(vec![node], format!("{node} gets no more memory")))
    }

    fn starve(&mut self) -> Result<Struck> {
        let node = self.any();
        let pid = self.arena.member(node).pid()?;
        let duty = tokio::spawn(async move {
            loop {
                // A process that is gone needs no food.
                let _ = kill_process(pid, Signal::STOP);
                sleep(UNFED).await;
                let _ = kill_process(pid, Signal::CONT);
                sleep(FED).await;
            }
        });
        let struck = self.struck(vec![node], format!("{node} gets a fifth of the processor"));
        Ok(Struck { duty: Some(duty), ..struck })
    }

    /// A node is away long enough to need a checkpoint, comes back, and is killed while it takes
    /// what it missed.
    async fn checkpoint_cut(&mut self) -> Result<Struck> {
        let nodes = self.others();
        let node = *self.aim.dice.pick(&nodes);
        self.arena.member(node).kill()?;
        sleep(Duration::from_millis(self.aim.dice.between(2000, 5000))).await;
        self.arena.member(node).start()?;
        sleep(Duration::from_millis(self.aim.dice.between(50, 600))).await;
        self.arena.member(node).kill()?;
        Ok(self.struck(vec![node], format!("killed {node}, and again while it caught up")))
    }

    fn disk_full(&mut self) -> Result<Struck> {
        let node = self.any();
        self.arena.member(node).disk()?.fill()?;
        Ok(self.struck(vec![node], format!("the disk of {node} is full")))
    }

    fn power(&mut self, nodes: Vec<NodeId>) -> Result<Struck> {
        self.arena.cut_power(&nodes)?;
        Ok(self.struck(nodes.clone(), format!("cut the power of {nodes:?}")))
    }

    fn wires(&mut self, name: &str) -> Result<Struck> {
        let leader = self.aim.leader;
        let one = self.any();
        let others = |one: NodeId, all: &[NodeId]| -> Vec<NodeId> {
            all.iter().copied().filter(|node| *node != one).collect()
        };
        let all = self.arena.ids();
        let dice = &mut self.aim.dice;
        let network = self.arena.network()?;
        let cut_off = |one: NodeId| -> Result<()> {
            for other in others(one, &all) {
                network.set(one, other, Link::CUT)?;
                network.set(other, one, Link::CUT)?;
            }
            Ok(())
        };
        let (mut minority, words) = (Vec::new(), match name {
            "isolate-leader" => {
                cut_off(leader)?;
                format!("{leader} reaches no other node")
            }
            "split" => {
                cut_off(one)?;
                format!("{one} on this side, the others on that")
            }
            "ring" => {
                let rest = others(one, &all);
                let (a, b) = (rest[0], rest[1]);
                network.set(a, b, Link::CUT)?;
                network.set(b, a, Link::CUT)?;
                format!("{a} and {b} reach each other only through {one}")
            }
            "one-way" => {
                for other in others(one, &all) {
                    network.set(one, other, Link::CUT)?;
                }
                format!("{one} hears the others, and they do not hear it")
            }
            "peer-port" => {
                let other = *dice.pick(&others(one, &all));
                let link = Link { closed_port: PEER_PORT, ..Link::default() };
                network.set(one, other, link)?;
                network.set(other, one, link)?;
                format!("{one} and {other} do not reach each other's port for peers")
            }
            "delay" => {
                let ms = dice.between(20, 60).cast_signed();
                let (delay_us, jitter_us) = (ms * 1000, ms * 500);
                network.set_all(Link { delay_us, jitter_us, ..Link::default() })?;
                format!("packets are {ms} ms late, and up to half of it more")
            }
            "loss" => {
                let percent = dice.between(5, 20).cast_signed();
                network.set_all(Link { loss_ppm: percent * 10_000, ..Link::default() })?;
                format!("{percent} of a hundred packets are lost")
            }
            "twice" => {
                let (twice_ppm, jitter_us) = (400_000, 5_000);
                network.set_all(Link { twice_ppm, jitter_us, ..Link::default() })?;
                "40 of a hundred packets arrive twice, up to 5 ms late".to_owned()
            }
            "narrow" => {
                network.set_all(Link { bytes_per_second: 125_000, ..Link::default() })?;
                "one megabit a second in each direction".to_owned()
            }
            other => bail!("there is no fault of the name {other}"),
        });
        let nodes = match name {
            "isolate-leader" => {
                minority.push(leader);
                vec![leader]
            }
            "split" => {
                minority.push(one);
                vec![one]
            }
            "one-way" | "ring" | "peer-port" => vec![one],
            _ => all,
        };
        let struck = self.struck(nodes, words);
        Ok(Struck { minority, ..struck })
    }
}
