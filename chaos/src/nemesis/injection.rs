//! Strike: how each kind of fault is made.

use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::{Signal, kill_process};
use tokio::time::sleep;

use super::{FaultKind, FaultTarget, InjectedFault, RECOVERY_TIME, Repair, bit_flip};
use crate::cluster::{Illness, Link, TestCluster};
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
pub(super) struct FaultInjection<'a> {
    pub(super) arena: &'a mut TestCluster,
    pub(super) kind: &'static FaultKind,
    pub(super) aim: FaultTarget,
}

impl FaultInjection<'_> {
    pub(super) async fn strike(mut self) -> Result<InjectedFault> {
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
            "disk-full" => {
                let node = self.any();
                self.fill(vec![node])
            }
            "disks-full" => self.fill(self.arena.ids()),
            "power-one" => {
                let node = self.any();
                self.power(vec![node])
            }
            "power-all" => self.power(self.arena.ids()),
            name => self.wires(name),
        }
    }

    fn struck(&self, nodes: Vec<NodeId>, words: String) -> InjectedFault {
        InjectedFault {
            kind: self.kind,
            nodes,
            words,
            minority: Vec::new(),
            duty: None,
            mend: None,
        }
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

    fn kill_one_of(&mut self, nodes: &[NodeId]) -> Result<InjectedFault> {
        let node = *self.aim.dice.pick(nodes);
        self.kill(vec![node])
    }

    fn kill(&mut self, nodes: Vec<NodeId>) -> Result<InjectedFault> {
        for node in &nodes {
            self.arena.member(*node).kill()?;
        }
        Ok(self.struck(nodes.clone(), format!("killed {nodes:?}")))
    }

    fn pause(&mut self, node: NodeId) -> Result<InjectedFault> {
        self.arena.member(node).signal(Signal::STOP)?;
        Ok(self.struck(vec![node], format!("paused {node}")))
    }

    async fn restart(&mut self, node: NodeId) -> Result<InjectedFault> {
        self.arena.member(node).stop().await?;
        Ok(self.struck(vec![node], format!("stopped {node} well")))
    }

    async fn rolling_restart(&mut self) -> Result<InjectedFault> {
        for node in self.arena.ids() {
            self.arena.member(node).stop().await?;
            self.arena.member(node).start()?;
            self.arena.wait_until_ready(RECOVERY_TIME).await?;
        }
        Ok(self.struck(self.arena.ids(), "each node was stopped and started".to_owned()))
    }

    fn empty_disk(&mut self) -> Result<InjectedFault> {
        let node = self.any();
        let member = self.arena.member(node);
        member.kill()?;
        let away = member.forget_everything()?;
        member.start()?;
        let struck = self.struck(vec![node], format!("{node} came back with an empty disk"));
        Ok(InjectedFault { mend: Some(Repair::Directory { node, away }), ..struck })
    }

    fn flip(&mut self, what: &str, spare_the_end: bool) -> Result<InjectedFault> {
        let node = self.any();
        self.arena.member(node).kill()?;
        let data = self.arena.member(node).data.clone();
        let bit = bit_flip::flip(&data.join(what), spare_the_end, &mut self.aim.dice)?;
        let struck = self.struck(vec![node], format!("killed {node} and flipped {bit}"));
        Ok(InjectedFault { mend: Some(Repair::BitFlip { node, bit }), ..struck })
    }

    fn ill(&mut self, illness: Illness, number: i64, words: &str) -> Result<InjectedFault> {
        let node = self.any();
        self.arena.member(node).suffer(illness, number)?;
        Ok(self.struck(vec![node], format!("on {node} {words}")))
    }

    fn memory(&mut self) -> Result<InjectedFault> {
        let node = self.any();
        self.arena.member(node).starve_of_memory()?;
        Ok(self.struck(vec![node], format!("{node} gets no more memory")))
    }

    fn starve(&mut self) -> Result<InjectedFault> {
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
        Ok(InjectedFault { duty: Some(duty), ..struck })
    }

    /// A node is away long enough to need a checkpoint, comes back, and is killed while it takes
    /// what it missed.
    async fn checkpoint_cut(&mut self) -> Result<InjectedFault> {
        let nodes = self.others();
        let node = *self.aim.dice.pick(&nodes);
        self.arena.member(node).kill()?;
        sleep(Duration::from_millis(self.aim.dice.between(20_000, 30_000))).await;
        self.arena.member(node).start()?;
        sleep(Duration::from_millis(self.aim.dice.between(50, 600))).await;
        self.arena.member(node).kill()?;
        Ok(self.struck(vec![node], format!("killed {node}, and again while it caught up")))
    }

    fn fill(&mut self, nodes: Vec<NodeId>) -> Result<InjectedFault> {
        for node in &nodes {
            self.arena.member(*node).disk()?.fill()?;
        }
        Ok(self.struck(nodes.clone(), format!("the disks of {nodes:?} are full")))
    }

    fn power(&mut self, nodes: Vec<NodeId>) -> Result<InjectedFault> {
        self.arena.cut_power(&nodes)?;
        Ok(self.struck(nodes.clone(), format!("cut the power of {nodes:?}")))
    }

    fn wires(&mut self, name: &str) -> Result<InjectedFault> {
        match name {
            "isolate-leader" => self.cut_off(self.aim.leader),
            "split" => {
                let one = self.any();
                self.cut_off(one)
            }
            "ring" | "one-way" | "peer-port" => self.cut_some(name),
            "delay" | "loss" | "twice" | "narrow" => self.spoil(name),
            other => bail!("there is no fault of the name {other}"),
        }
    }

    fn cut_off(&self, one: NodeId) -> Result<InjectedFault> {
        let network = self.arena.network()?;
        for other in self.but(one) {
            network.set(one, other, Link::CUT)?;
            network.set(other, one, Link::CUT)?;
        }
        let struck =
            self.struck(vec![one], format!("{one} and the others do not reach each other"));
        Ok(InjectedFault { minority: vec![one], ..struck })
    }

    fn but(&self, one: NodeId) -> Vec<NodeId> {
        self.arena.ids().into_iter().filter(|node| *node != one).collect()
    }

    fn cut_some(&mut self, name: &str) -> Result<InjectedFault> {
        let one = self.any();
        let rest = self.but(one);
        let other = *self.aim.dice.pick(&rest);
        let network = self.arena.network()?;
        let words = match name {
            "ring" => {
                let (a, b) = (rest[0], rest[1]);
                network.set(a, b, Link::CUT)?;
                network.set(b, a, Link::CUT)?;
                format!("{a} and {b} do not reach each other; both reach {one}")
            }
            "one-way" => {
                for other in rest {
                    network.set(one, other, Link::CUT)?;
                }
                format!("{one} hears the others, and they do not hear it")
            }
            _ => {
                let link = Link { closed_port: PEER_PORT, ..Link::default() };
                network.set(one, other, link)?;
                network.set(other, one, link)?;
                format!("{one} and {other} do not reach each other's port for peers")
            }
        };
        Ok(self.struck(vec![one], words))
    }

    fn spoil(&mut self, name: &str) -> Result<InjectedFault> {
        let dice = &mut self.aim.dice;
        let calm = Link::default();
        let (link, words) = match name {
            "delay" => {
                let ms = dice.between(20, 60).cast_signed();
                let link = Link { delay_us: ms * 1000, jitter_us: ms * 500, ..calm };
                (link, format!("packets are {ms} ms late, and up to half of it more"))
            }
            "loss" => {
                let percent = dice.between(5, 20).cast_signed();
                let link = Link { loss_ppm: percent * 10_000, ..calm };
                (link, format!("{percent} of a hundred packets are lost"))
            }
            "twice" => {
                let link = Link { twice_ppm: 400_000, jitter_us: 5_000, ..calm };
                (link, "40 of a hundred packets arrive twice, up to 5 ms late".to_owned())
            }
            _ => {
                let link = Link { bytes_per_second: 125_000, ..calm };
                (link, "one megabit a second in each direction".to_owned())
            }
        };
        self.arena.network()?.set_all(link)?;
        Ok(self.struck(self.arena.ids(), words))
    }
}
