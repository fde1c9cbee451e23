import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { appUser } from '../api/names.ts';
import type { Logger } from '../log/logger.ts';
import {
  type ControlData,
  type ControlledSettings,
  clone,
  doomedProcesses,
  findStaleProcesses,
  type Identity,
  LocalSql,
  type Lsn,
  PostgresError,
  type PostgresInstallation,
  PostgresLogParser,
  type PostgresLogRecord,
  PostgresProcess,
  type Promotion,
  prepareVolume,
  promotionParent,
  readControlData,
  readPromotion,
  readSlotFiles,
  readTimelineHistory,
  remoteFailoverSlots,
  removeForeignHistories,
  removeOldData,
  removeUnreachedHistories,
  renderSettings,
  replayProgress,
  replicationName,
  reserveTimeline,
  rewind,
  type SlotRow,
  type Observation as SqlObservation,
  setStandbySignal,
  type TimelineFork,
  volumeSpace,
  wasShutDownCleanly,
  writePromotion,
  writeSettings,
} from '../postgres/index.ts';
import type { Guard } from './guard.ts';
import type {
  AppliedSettings,
  Observation,
  Operation,
  OperationOutcome,
  PostgresFacts,
  Settings,
  SlotUpkeep,
  Upstream,
  Volume,
} from './ha/index.ts';
import { tendSlots } from './slot-upkeep.ts';
import { readAcceptedSettings, refusedByProgram, writeAcceptedSettings } from './user-settings.ts';

/** What Postgres is to run with, besides what the decisions set. */
export interface UserSettings {
  readonly generation: number;
  readonly parameters: Readonly<Record<string, string>>;
  readonly hba: readonly string[];
}

export interface DatabaseOptions {
  readonly installation: PostgresInstallation;
  readonly clusterId: string;
  readonly clusterName: string;
  readonly osUser: string;
  readonly memoryBytes?: number | undefined;
  /** DNS name of an instance in its certificate. */
  readonly hostOf: (instance: string) => string;
  readonly now: () => number;
  readonly guard: Guard;
  readonly log: Logger;
  readonly user: () => UserSettings;
  /** The present leader's timeline and its ancestors, if it proves that it leads. */
  readonly leaderHistory: () =>
    | { readonly timeline: number; readonly ancestors: readonly { timeline: number; end: Lsn }[] }
    | undefined;
  /** Something about Postgres is different now. */
  readonly onChange: () => void;
}

/** How long each step of an operation may take, ms. */
const limit = {
  receiverGone: 3_000,
  receiverPatience: 300,
  replay: 60_000,
  /** More than twice `wal_retrieve_retry_interval`: within this a waiting startup process has looked again. */
  replayLooksAgain: 250,
  promotion: 60_000,
  configure: 10_000,
  stop: 55_000,
  checkpoint: 300_000,
  proof: 3_000,
  /** For an operation to end that a fence interrupted; all that it can still wait for is a disk. */
  interrupted: 500,
  /** For the look at the volume after a fence: the others are told that nothing is acknowledged any more, not later. */
  lookAfterFence: 300,
} as const;

/** When, after a reload, waiting commits are seen to be released, each counted from the one before, ms. */
const walsendersWakeAfterMs = [0, 50];

/** A Postgres that has not answered for this long is a problem to be told, ms. */
const silenceTellMs = 5_000;
/** How often a volume that cannot be read is looked at again, ms. */
const lookAgainMs = 1_000;

/** A Postgres that ended for want of room needs this many free WAL segments: one to go on with, and one for the next. */
const roomSegments = 2;
/** Postgres's `disk_full` (errcodes.txt). */
const diskFullState = '53100';

/** How often a standby looks whether its primary was restarted with less of the settings that it may not have less of, ms. */
const controlEveryMs = 3_000;

/** How often it is tried whether new clients get an answer, ms, and how long that may take, ms. */
const newClientEveryMs = 2_000;
const newClientPatienceMs = 5_000;

/** The Postgres of this instance: what is known about it, and the slow operations on it. Decides nothing. */
export class Database {
  readonly #o: DatabaseOptions;
  readonly #process: PostgresProcess;
  #sql: LocalSql;
  #state: PostgresFacts;
  #volume: Volume = { state: 'unknown' };
  #identity: Identity | undefined;
  /** The data go at least up to here, as was last seen. */
  #held: Lsn | undefined;
  #applied: AppliedSettings | undefined;
  #last: SqlObservation | undefined;
  #ancestors: { timeline: number; forks: readonly TimelineFork[] } | undefined;
  #current: { readonly operation: Operation; readonly aborter: AbortController } | undefined;
  /** Settles when every operation so far has ended, those that were interrupted as well. */
  #settled: Promise<void> = Promise.resolve();
  /** The removal of old data under way, for which no operation waits. */
  #tidying: AbortController | undefined;
  /** The look at the volume under way after Postgres ended. */
  #ending: Promise<void> | undefined;
  #walLost = false;
  /** Since this Postgres was started as standby, its replay has come to the end of what was on its disk. */
  #localWalReplayed = false;
  /** The owned settings as rendered last, to be verified. */
  #owned: Readonly<Record<string, string>> = {};
  #overridden: readonly string[] = [];
  #lowered: readonly string[] = [];
  /** Of the control file, as read when Postgres was started or the user's settings changed. */
  #control: ControlledSettings | undefined;
  /** Of the control file, as read when Postgres was last seen to be down. */
  #controlAtEnd: ControlData | undefined;
  /** This standby has more of some setting than the user asks for, because its primary had when `control` was read. */
  #heldUp = false;
  #controlReadAt = 0;
  /** The user's settings in force, checked for this generation of them. */
  #checked: UserSettings | undefined;
  #userProblem: { readonly reason: string; readonly message: string } | undefined;
  /** The last Postgres ended because there was no room on a volume. */
  #endedForRoom = false;
  #volumeProblem: { readonly reason: string; readonly message: string } | undefined;
  /** Since when each look at Postgres has failed, and why the last one did. */
  #silence: { readonly since: number; readonly message: string } | undefined;

  /** The last trial whether new clients get an answer. */
  #newClient = { at: 0, underWay: false, failed: false };

  constructor(options: DatabaseOptions) {
    this.#o = options;
    const parser = new PostgresLogParser((record) => this.#onLog(record));
    this.#process = new PostgresProcess(options.installation, {
      onLog: (line) => parser.line(line),
      onExit: () =>
        void this.#onExit().catch((error) => this.#o.log.error({ err: error }, 'the end of Postgres')),
    });
    this.#sql = new LocalSql(options.installation.paths, { now: options.now });
    this.#state = { process: 'ended', since: options.now(), walLost: false };
  }

  get facts(): PostgresFacts {
    return { ...this.#state, walLost: this.#walLost };
  }

  get volume(): Volume {
    return this.#volume;
  }

  /** The data go at least up to here, also while Postgres is down; undefined: nothing is known. */
  get held(): Lsn | undefined {
    return this.#held;
  }

  get applied(): AppliedSettings | undefined {
    return this.#applied;
  }

  /** What is wrong with this Postgres that people should know: first what it cannot work with at all. */
  get problem(): { readonly reason: string; readonly message: string } | undefined {
    const silent =
      this.#silence !== undefined && this.#o.now() - this.#silence.since >= silenceTellMs
        ? { reason: 'PostgresDoesNotAnswer', message: this.#silence.message }
        : undefined;
    return this.#volumeProblem ?? silent ?? this.#userProblem;
  }

  /** The slots as seen last; none when Postgres is down. */
  get slots(): readonly SlotRow[] {
    return this.#last?.slots ?? [];
  }

  /** Settings that a restart of this primary would lower although standbys may not have them lower than it. */
  get lowered(): readonly string[] {
    return this.#lowered;
  }

  /** Ancestors of the timeline that a primary is on, oldest first. */
  get ancestors(): readonly { timeline: number; end: Lsn }[] {
    return this.#ancestors?.timeline === this.#state.observation?.timeline
      ? (this.#ancestors?.forks ?? []).map((f) => ({ timeline: f.timeline, end: f.endLsn }))
      : [];
  }

  /** The primary's control file is on its timeline: pg_rewind may use it as a source. */
  get checkpointed(): boolean {
    return this.#last !== undefined && this.#last.checkpointTimeline === this.#last.timeline;
  }

  /**
   * Brings the volume into order and reads what is on it; before that nothing is started. It takes as long as the disk
   * does, and as what is half made takes to be removed. Throws when the volume cannot be read or is not this cluster's.
   * Where processes of a former Postgres live, they have to be fenced first, which reads the volume, too.
   */
  async open(): Promise<void> {
    const { dataRoot } = this.#o.installation.paths;
    if (isAllDoomed(dataRoot, findStaleProcesses(dataRoot))) await this.#lookUntilFree({ once: true });
    else this.#set({ process: 'leftovers', since: this.#o.now(), walLost: false });
  }

  async close(): Promise<void> {
    await this.#sql.close();
  }

  /** One look at Postgres; failures leave the last one to grow old, and are told in `problem` when they go on. */
  async observe(timeoutMs: number): Promise<void> {
    if (this.#state.process !== 'running') return;
    const at = this.#o.now();
    // Postgres may end while it is asked, or another one start: then this says nothing of what is there now.
    const isOld = () => this.#state.process !== 'running' || at < this.#state.since;
    this.#tryNewClient(at);
    try {
      const seen = await this.#sql.observe(timeoutMs);
      if (isOld()) return;
      // Kept connections go on: without this, a postmaster that lets in nobody would look well.
      if (this.#newClient.failed)
        throw new Error(`a new connection to Postgres got no answer within ${newClientPatienceMs} ms`);
      if (!seen.inRecovery && this.#ancestors?.timeline !== seen.timeline) {
        await this.#readAncestors(seen.timeline);
        if (isOld()) return;
      }
      this.#last = seen;
      this.#noteHeld(seen.inRecovery ? (seen.receiveLsn ?? seen.replayLsn) : seen.flushLsn);
      if (seen.receiveLsn !== null || replayProgress(seen) === 'done') this.#localWalReplayed = true;
      const replaysLocalWal = seen.inRecovery && !seen.replayPaused && !this.#localWalReplayed;
      const observation = toObservation(seen, at, this.#overridden);
      this.#state = {
        ...this.#state,
        observation: replaysLocalWal ? { ...observation, replaysLocalWal } : observation,
      };
      if (seen.walReceiver?.status === 'streaming') this.#walLost = false;
      if (seen.inRecovery) await this.#followLowered();
      this.#silence = undefined;
    } catch (error) {
      if (isOld()) return;
      const known = this.#silence;
      this.#silence = { since: known?.since ?? at, message: messageOf(error) };
      // The first, and each new reason; the same again is no news.
      if (known?.message !== this.#silence.message)
        this.#o.log.warn({ err: error }, 'Postgres did not answer');
      return;
    }
    this.#o.onChange();
  }

  #noteHeld(lsn: Lsn | null): void {
    if (lsn !== null && lsn > (this.#held ?? 0n)) this.#held = lsn;
  }

  #tryNewClient(at: number): void {
    if (this.#newClient.underWay || at - this.#newClient.at < newClientEveryMs) return;
    const { since } = this.#state;
    this.#newClient = { ...this.#newClient, at, underWay: true };
    void this.#sql.answersNewClients(newClientPatienceMs).then((answers) => {
      // Nothing is held against a Postgres that was started in the meantime.
      this.#newClient = { at, underWay: false, failed: !answers && this.#state.since === since };
    });
  }

  /** A primary that was restarted with less lets its standbys have less, too: their settings are out of date then. */
  async #followLowered(): Promise<void> {
    const control = this.#control;
    if (!this.#heldUp || control === undefined || this.#o.now() - this.#controlReadAt < controlEveryMs)
      return;
    this.#controlReadAt = this.#o.now();
    const { settings } = await readControlData(this.#o.installation);
    if (controlledNames.every((name) => settings[name] === control[name])) return;
    this.#control = settings;
    if (this.#applied !== undefined) this.#applied = { ...this.#applied, generation: 0 };
  }

  /**
   * Carries out one operation; a new call interrupts the one before. A fence kills first and then waits for the
   * interrupted one; any other operation begins only when all before it have ended. Never throws.
   */
  async operate(operation: Operation): Promise<OperationOutcome> {
    this.#current?.aborter.abort(
      new OperationError('Interrupted', `the operation "${operation.do}" came first`),
    );
    const aborter = new AbortController();
    this.#current = { operation, aborter };
    // These take WAL away.
    if (operation.do === 'rewind' || operation.do === 'clone') this.#held = undefined;
    this.#tidying?.abort(new OperationError('Interrupted', `the operation "${operation.do}" came first`));
    const before = this.#settled;
    const outcome = this.#outcome(operation, aborter, before);
    // Without their results, which would be kept for ever.
    this.#settled = Promise.all([before, outcome]).then(() => undefined);
    return await outcome;
  }

  async #outcome(
    operation: Operation,
    aborter: AbortController,
    before: Promise<unknown>,
  ): Promise<OperationOutcome> {
    const { signal } = aborter;
    try {
      if (operation.do === 'fence') {
        await this.#fence(operation, before);
        return { ok: true };
      }
      await step(before, signal);
      const lsn = await step(this.#run(operation, signal), signal);
      return lsn === undefined ? { ok: true } : { ok: true, lsn };
    } catch (error) {
      return {
        ok: false,
        reason: isForRoom(error)
          ? 'DiskFull'
          : error instanceof PostgresError
            ? error.code
            : error instanceof OperationError
              ? error.reason
              : 'OperationFailed',
        message: messageOf(error),
        ...(error instanceof OperationError && error.needsClone ? { needsClone: true } : {}),
      };
    } finally {
      if (this.#current?.aborter === aborter) this.#current = undefined;
    }
  }

  async #run(operation: Exclude<Operation, { do: 'fence' }>, signal: AbortSignal): Promise<Lsn | undefined> {
    switch (operation.do) {
      case 'start':
        return await this.#start(operation, signal);
      case 'stop':
        await this.#process.stop('fast', { timeoutMs: limit.stop, signal });
        await this.#ended();
        // What it interrupted may have been the first clone.
        return this.#volume.state === 'ready' ? await this.#cleanEnd(signal) : undefined;
      case 'configure':
        await this.#configure(operation.settings, signal);
        return undefined;
      case 'stop-receiver':
        await this.#configure(operation.settings, signal);
        await this.#receiverGone(signal);
        return undefined;
      case 'promote':
        return await this.#promote(operation, signal);
      case 'prove-wait':
        if (!(await this.#sql.proveCommitsWait(limit.proof)))
          throw new OperationError(
            'CommitsDoNotWait',
            'no commit was seen to wait for a synchronous standby',
          );
        return undefined;
      case 'checkpoint':
        await this.#sql.checkpoint(limit.checkpoint);
        return undefined;
      case 'rewind':
        await this.#rewind(operation.upstream, signal);
        return undefined;
      case 'clone':
        await this.#clone(operation.upstream, signal);
        return undefined;
    }
  }

  /**
   * Rule "Fence": when it returns, nothing of Postgres lives, and nothing that was under way can start or change
   * anything any more. `before`: the operations that were interrupted.
   */
  async #fence(
    { why, atOnce }: Extract<Operation, { do: 'fence' }>,
    before: Promise<unknown>,
  ): Promise<void> {
    const report = await this.#process.fence(atOnce === true ? { graceMs: 0 } : {});
    await Promise.race([before, sleep(limit.interrupted)]);
    // It cannot have started anything after it was interrupted; this makes sure.
    const again = await this.#process.fence({ graceMs: 0 });
    this.#o.log.warn({ ...report, killed: report.killed + again.killed }, `fenced: ${why}`);
    this.#o.guard.postmaster(0);
    // Nothing is acknowledged any more: that need not wait for the disk, which may be why this is necessary.
    this.#state = { process: 'ended', since: this.#o.now(), walLost: false };
    const look = before
      .then(() => this.#lookUntilFree())
      .catch((error) => this.#o.log.error({ err: error }, 'the volume after a fence'));
    // As long as processes wait for the disk there is nothing to see.
    if (again.uninterruptible.length === 0) await Promise.race([look, sleep(limit.lookAfterFence)]);
  }

  /**
   * Nothing of Postgres can run: looks at the volume when no process holds it any more, and again until it can be read
   * (`once`: throws instead).
   */
  async #lookUntilFree({ once = false } = {}): Promise<void> {
    const { since } = this.#state;
    for (let first = true; ; first = false) {
      if (!first) await sleep(lookAgainMs);
      // A later fence looks by itself.
      if (this.#state.process !== 'ended' || this.#state.since !== since) return;
      if (doomedProcesses(this.#o.installation.paths.dataRoot).length > 0) continue;
      // One that began before has perhaps not seen what the interrupted operation wrote last.
      await this.#ending?.catch(() => undefined);
      try {
        return await this.#ended();
      } catch (error) {
        if (once) throw error;
        this.#o.log.error({ err: error }, 'Postgres was fenced, and its volume cannot be read');
      }
    }
  }

  /** Where the shutdown's checkpoint is. A Postgres that crashed while it was stopped has none to go by. */
  async #cleanEnd(signal: AbortSignal): Promise<Lsn> {
    const control = this.#controlAtEnd ?? (await readControlData(this.#o.installation, { signal }));
    if (!wasShutDownCleanly(control))
      throw new OperationError('NotStoppedCleanly', `Postgres ended in the state "${control.state}"`);
    return control.checkpointLsn;
  }

  async #start(
    operation: Extract<Operation, { do: 'start' }>,
    signal: AbortSignal,
  ): Promise<Lsn | undefined> {
    const { as, settings } = operation;
    const { paths } = this.#o.installation;
    if (this.#volume.state !== 'ready')
      throw new OperationError('VolumeNotReady', 'there is no usable data directory');
    const control = await readControlData(this.#o.installation, { signal });
    if (this.#endedForRoom) await step(this.#waitForRoom(control.walSegmentBytes), signal);
    this.#control = control.settings;
    this.#controlAtEnd = undefined;
    this.#checked = undefined;
    const own = Math.max(control.checkpointTimeline, control.minRecoveryEndTimeline);
    // R6: numbers reserved for a promotion that did not happen must not be taken for children of this timeline.
    if (as === 'standby') {
      await step(removeUnreachedHistories(paths, own), signal);
      // A history file of a leader that lost before it streamed anything would be followed for ever.
      const leader = this.#o.leaderHistory();
      if (leader !== undefined) {
        const ancestors = leader.ancestors.map((a) => ({ timeline: a.timeline, endLsn: a.end, reason: '' }));
        await step(removeForeignHistories(paths, own, { timeline: leader.timeline, ancestors }), signal);
      }
    }
    await this.#writeChecked(settings, as === 'standby', signal);
    await step(setStandbySignal(paths, as === 'standby'), signal);
    if (operation.as === 'primary' && operation.term > this.#volume.promotedTerm)
      await step(writePromotion(paths, { term: operation.term, timeline: operation.timeline }), signal);
    this.#state = { process: 'starting', startedAs: as, since: this.#o.now(), walLost: false };
    this.#walLost = false;
    this.#localWalReplayed = false;
    try {
      this.#o.guard.postmaster(await step(this.#process.start({ signal }), signal));
      this.#o.onChange();
      // Crash recovery may take long: it is not limited, and the heartbeats go on.
      while (!(await this.#process.waitUntilReady({ timeoutMs: 5_000, signal })))
        this.#o.log.info('Postgres is still starting');
    } catch (error) {
      if (this.#process.pid === undefined) await this.#ended();
      throw error;
    }
    signal.throwIfAborted();
    this.#set({ ...this.#state, process: 'running', since: this.#o.now() });
    await step(this.#verify(), signal);
    this.#applied = { ...settings, generation: this.#o.user().generation };
    await this.observe(2_000);
    return as === 'primary' ? (this.#last?.flushLsn ?? undefined) : undefined;
  }

  /** A Postgres that ended because its disk was full would come up and end again and again. */
  async #waitForRoom(walSegmentBytes: number): Promise<void> {
    const { data, wal } = await volumeSpace(this.#o.installation.paths);
    const needed = roomSegments * walSegmentBytes;
    const free = Math.min(data.freeBytes, wal.freeBytes);
    if (free < needed)
      throw new OperationError(
        'DiskFull',
        `Postgres ended because its disk was full, and is not started before ${inMebibytes(needed)} are free; found ${inMebibytes(free)}; enlarge the volume`,
      );
    this.#endedForRoom = false;
  }

  async #configure(settings: Settings, signal: AbortSignal): Promise<void> {
    const { generation } = this.#o.user();
    // Another primary may still have the WAL that the last one had removed.
    if (settings.upstream?.instance !== this.#applied?.upstream?.instance) this.#walLost = false;
    const standby = this.#state.observation?.inRecovery ?? this.#state.startedAs === 'standby';
    await this.#writeChecked(settings, standby, signal);
    if (this.#state.process === 'running') {
      const mismatches = await step(this.#sql.reloadAndVerify(this.#owned, limit.configure), signal);
      this.#overridden = mismatches.filter((m) => !m.pendingRestart).map((m) => m.name);
      if (this.#overridden.length > 0)
        this.#o.log.warn({ mismatches }, 'settings that Koschei owns are overridden from elsewhere');
      if (!settings.clientsAllowed) await step(this.#endClientSessions(), signal);
      const before = this.#applied?.synchronousNames ?? [];
      if (!standby && before.some((name) => !settings.synchronousNames.includes(name)))
        void this.#wakeWalsenders();
    }
    this.#applied = { ...settings, generation };
    await this.observe(2_000);
  }

  /** Whoever waits for nobody any more is released; a second time for walsenders that had not yet loaded the new list. */
  async #wakeWalsenders(): Promise<void> {
    const { since } = this.#state;
    for (const afterMs of walsendersWakeAfterMs) {
      await sleep(afterMs);
      if (this.#state.process !== 'running' || this.#state.since !== since) return;
      await this.#sql.wakeWalsenders().catch((error) => this.#o.log.debug({ err: error }, 'walsenders'));
    }
  }

  /** A closed door keeps new clients out; a session of a standby from before could write once that is promoted. */
  async #endClientSessions(): Promise<void> {
    const ended = await this.#sql.endClientSessions();
    if (ended > 0) this.#o.log.info({ ended }, 'client sessions were ended: clients are not let in now');
  }

  async #verify(): Promise<void> {
    const mismatches = await this.#sql.verifySettings(this.#owned).catch(() => []);
    this.#overridden = mismatches.filter((m) => !m.pendingRestart).map((m) => m.name);
  }

  /**
   * Writes the settings with what the user asks for or, when Postgres would refuse that, with what it accepted last: a
   * mistake in a parameter never stops a database, nor a change of the synchronous set.
   */
  async #writeChecked(settings: Settings, standby: boolean, signal: AbortSignal): Promise<void> {
    const { installation } = this.#o;
    const wanted = this.#o.user();
    // On the way of a failover nothing is asked that is known already.
    if (this.#checked?.generation === wanted.generation)
      return await this.#write(settings, standby, this.#checked, signal);
    this.#control = (await readControlData(installation, { signal })).settings;
    await this.#write(settings, standby, wanted, signal);
    const refused = await step(
      this.#state.process === 'running' ? this.#refusedByServer() : refusedByProgram(installation, signal),
      signal,
    );
    if (refused === undefined) {
      this.#userProblem = undefined;
      this.#checked = wanted;
      return await step(writeAcceptedSettings(installation.paths, wanted), signal);
    }
    this.#o.log.warn({ refused }, 'Postgres would refuse the settings; those it accepted last stay');
    this.#userProblem = {
      reason: 'UnknownParameter',
      message: `${refused}; the settings of before stay in force`,
    };
    const accepted = await step(readAcceptedSettings(installation.paths), signal);
    this.#checked = { ...accepted, generation: wanted.generation };
    await this.#write(settings, standby, this.#checked, signal);
  }

  async #refusedByServer(): Promise<string | undefined> {
    const errors = await this.#sql.checkFiles();
    return errors.length === 0
      ? undefined
      : errors.map((e) => `${e.file}:${e.line ?? '?'}: ${e.error}`).join('; ');
  }

  async #write(settings: Settings, standby: boolean, user: UserSettings, signal: AbortSignal): Promise<void> {
    const { installation, clusterName, osUser, memoryBytes } = this.#o;
    const dataId = this.#identity?.dataId ?? '';
    const space = await step(volumeSpace(installation.paths), signal);
    const slots = await step(readSlotFiles(installation.paths), signal);
    const spec = {
      paths: installation.paths,
      major: installation.binaries.major,
      clusterName,
      dataId,
      osUser,
      parameters: user.parameters,
      hba: user.hba,
      applyDelaySeconds: settings.applyDelaySeconds,
      memoryBytes,
      walVolumeBytes: space.wal.totalBytes,
      synchronousStandbys: settings.synchronousNames,
      upstream: settings.upstream === undefined ? undefined : this.#upstream(settings.upstream),
      upstreamSlot: settings.upstream === undefined ? undefined : replicationName(dataId),
      cascades: settings.upstream?.cascades,
      // Consumers of failover slots wait for just those for whom commits wait.
      synchronizedSlots: settings.synchronousNames.filter((name) => slots.some((slot) => slot.name === name)),
      hasLogicalSlots: slots.some(({ logical }) => logical),
      acceptClients: settings.clientsAllowed,
    };
    const rendered = renderSettings({ ...spec, atLeast: standby ? this.#control : undefined });
    await step(writeSettings(installation.paths, rendered), signal);
    this.#owned = rendered.owned;
    const control = this.#control;
    const asked = renderSettings(spec).owned;
    const lower =
      control === undefined
        ? []
        : controlledNames.filter((name) => wantedValue(name, asked, user.parameters) < control[name]);
    this.#lowered = standby ? [] : lower;
    this.#heldUp = standby && lower.length > 0;
  }

  #upstream(upstream: Upstream) {
    return {
      host: this.#o.hostOf(upstream.instance),
      address: upstream.address,
      port: this.#o.installation.paths.port,
    };
  }

  /** R5: returns when no WAL receiver process and no row of one is left. */
  async #receiverGone(signal: AbortSignal): Promise<void> {
    const began = this.#o.now();
    let asked = false;
    for (;;) {
      signal.throwIfAborted();
      await this.observe(1_000);
      const seen = this.#last;
      const fresh = (this.#state.observation?.at ?? 0) >= began;
      if (fresh && seen !== undefined && seen.walReceiver === null && seen.walReceiverPid === null) return;
      const waited = this.#o.now() - began;
      if (waited > limit.receiverGone)
        throw new OperationError('ReceiverStays', 'the WAL receiver did not end');
      if (!asked && waited >= limit.receiverPatience) {
        asked = true;
        await step(this.#sql.terminateWalReceiver(), signal);
      }
      await sleep(10);
    }
  }

  async #promote(operation: Extract<Operation, { do: 'promote' }>, signal: AbortSignal): Promise<Lsn> {
    const { paths } = this.#o.installation;
    const { synchronousNames } = operation.settings;
    if (
      !sameList(this.#applied?.synchronousNames ?? [], synchronousNames) ||
      this.#applied?.upstream !== undefined ||
      this.#applied?.clientsAllowed !== operation.settings.clientsAllowed
    )
      await this.#configure(operation.settings, signal);
    await step(this.#receiverGone(signal), signal);
    const before = await step(this.#replayed(signal), signal);
    const expectedParent = await step(promotionParent(paths, before), signal);
    await step(reserveTimeline(paths, { own: expectedParent, allotted: operation.timeline }), signal);
    await writePromotion(paths, {
      term: operation.term,
      timeline: operation.timeline,
      parent: expectedParent,
    });
    if (this.#volume.state === 'ready') this.#volume = { ...this.#volume, promotedTerm: operation.term };
    signal.throwIfAborted();
    const { clientsAllowed } = operation.settings;
    // Who came while the postmaster had not yet read its new settings is in by now.
    if (!clientsAllowed) await step(this.#endClientSessions(), signal);
    await step(this.#sql.promote(), signal);
    // While it promotes: standbys that come too early try again after 100 ms.
    for (const slot of operation.slots)
      await this.#sql.createSlot(slot).catch((error) => this.#o.log.warn({ err: error, slot }, 'no slot'));
    const deadline = this.#o.now() + limit.promotion;
    for (;;) {
      signal.throwIfAborted();
      await this.observe(1_000);
      if (this.#state.observation?.inRecovery === false) break;
      if (this.#o.now() > deadline)
        throw new OperationError('PromotionTimeout', 'Postgres did not end its recovery');
      await sleep(10);
    }
    if (!clientsAllowed) await step(this.#endClientSessions(), signal);
    const after = this.#last;
    const parent = this.#ancestors?.forks.at(-1)?.timeline;
    if (after?.timeline !== operation.timeline || parent !== expectedParent)
      throw new OperationError(
        'WrongTimeline',
        `the promotion should lead from timeline ${expectedParent} to ${operation.timeline}; it led from ${parent ?? '?'} to ${after?.timeline ?? '?'}`,
      );
    // pg_rewind needs the control file on the new timeline; nobody has to wait for it.
    this.#sql
      .checkpoint(limit.checkpoint)
      .catch((error) => this.#o.log.warn({ err: error }, 'the checkpoint after the promotion failed'));
    return this.#ancestors?.forks.at(-1)?.endLsn ?? after.flushLsn ?? 0n;
  }

  /** R5: waits until everything received, now or before the last start, is replayed. */
  async #replayed(signal: AbortSignal): Promise<{ timeline: number; replayed: Lsn }> {
    let deadline = this.#o.now() + limit.replay;
    let furthest = 0n;
    let idle: { readonly since: number; readonly at: Lsn } | undefined;
    for (;;) {
      signal.throwIfAborted();
      const asked = this.#o.now();
      await this.observe(1_000);
      const seen = this.#last;
      if (seen !== undefined && (this.#state.observation?.at ?? 0) >= asked) {
        const progress = replayProgress(seen);
        const replayed = seen.replayLsn ?? 0n;
        if (replayed > furthest) [furthest, deadline] = [replayed, this.#o.now() + limit.replay];
        if (progress === 'done') return { timeline: seen.timeline, replayed };
        if (idle !== undefined && idle.at !== replayed) idle = undefined;
        if (progress === 'idle') idle ??= { since: asked, at: replayed };
        if (progress === 'idle' && idle !== undefined && asked - idle.since >= limit.replayLooksAgain)
          return { timeline: seen.timeline, replayed };
      }
      if (this.#o.now() > deadline)
        throw new OperationError(
          'ReplayTimeout',
          `the replay of what was received has stood still for ${limit.replay / 1_000} s`,
        );
      await sleep(10);
    }
  }

  async #stopForCopy(signal: AbortSignal): Promise<void> {
    await this.#process.stop('fast', { timeoutMs: limit.stop, signal });
    await this.#ended();
    if (this.#state.process !== 'none')
      throw new OperationError(
        'StaleProcesses',
        'processes of Postgres still wait for the disk; nothing is written to their directory before they are gone',
      );
  }

  async #rewind(upstream: Upstream, signal: AbortSignal): Promise<void> {
    await this.#stopForCopy(signal);
    const outcome = await rewind(this.#o.installation, {
      source: this.#upstream(upstream),
      dataId: this.#identity?.dataId ?? '',
      signal,
    });
    await this.#readVolume();
    if (outcome.kind === 'retry') throw new OperationError('RewindPostponed', outcome.reason);
    if (outcome.kind === 'needsReclone') throw new OperationError('RewindImpossible', outcome.reason, true);
  }

  async #clone(upstream: Upstream, signal: AbortSignal): Promise<void> {
    await this.#stopForCopy(signal);
    const dataId = randomBytes(8).toString('hex');
    await clone(this.#o.installation, {
      source: this.#upstream(upstream),
      dataId,
      clusterId: this.#o.clusterId,
      systemIdentifier: this.#identity?.systemIdentifier,
      signal,
    });
    await this.#readVolume();
  }

  /**
   * Frees the space of the data before the last clone, once the new data stream. While an operation runs it does
   * nothing, and one that comes interrupts it: call it again later. Throws when the volume cannot be changed.
   */
  async forgetOldData(): Promise<void> {
    if (this.#current !== undefined || this.#tidying !== undefined) return;
    const aborter = new AbortController();
    const { signal } = aborter;
    this.#tidying = aborter;
    const work = this.#settled.then(() => removeOldData(this.#o.installation.paths, { signal }));
    this.#settled = work.then(
      () => undefined,
      () => undefined,
    );
    try {
      if (await work) this.#o.log.info('removed the data of before the last clone');
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      this.#tidying = undefined;
    }
  }

  /** See `tendSlots`. */
  async tendSlots(upkeep: SlotUpkeep): Promise<void> {
    const seen = this.#last;
    if (seen === undefined) return;
    const { paths } = this.#o.installation;
    await tendSlots(upkeep, {
      sql: this.#sql,
      slots: seen.slots,
      inRecovery: seen.inRecovery,
      primaryHas: async () => {
        const upstream = this.#applied?.upstream;
        return upstream === undefined || upstream.cascades
          ? []
          : await remoteFailoverSlots(paths, this.#upstream(upstream));
      },
    });
  }

  /** Lets the copies of failover slots be brought up to date, if this is a standby that has some. */
  async wakeSlotSync(): Promise<void> {
    if (this.#last?.copiesSlots === true) await this.#sql.wakeSlotSync();
  }

  /** Gives the application's role the password that the operator wants; on the primary. */
  async setAppPassword(verifier: string): Promise<void> {
    if (await this.#sql.setPassword(appUser, verifier))
      this.#o.log.info({ role: appUser }, 'the role has the password of the Secret now');
  }

  async reload(): Promise<void> {
    if (this.#state.process === 'running') await this.#sql.reload();
  }

  async #onExit(): Promise<void> {
    this.#o.guard.postmaster(0);
    // It was fenced, and had slept uninterruptibly since: the fence sees to the rest.
    if (this.#state.process === 'ended') return;
    // Until the volume has been read again nothing may be started from it.
    if (this.#state.process === 'running' || this.#state.process === 'starting')
      this.#state = {
        process: 'starting',
        since: this.#o.now(),
        walLost: false,
        ...(this.#state.startedAs ? { startedAs: this.#state.startedAs } : {}),
      };
    const running = this.#current?.operation.do;
    // These end Postgres themselves, and look at the volume when they are done with it.
    if (running === 'stop' || running === 'fence' || running === 'rewind' || running === 'clone') return;
    this.#current?.aborter.abort(new OperationError('PostgresEnded', 'Postgres ended by itself'));
    const { since } = this.#state;
    for (;;) {
      try {
        return await this.#ended();
      } catch (error) {
        this.#o.log.error({ err: error }, 'Postgres ended, and its volume cannot be read');
      }
      await sleep(lookAgainMs);
      // An operation, such as a fence, has looked or will.
      if (this.#current !== undefined || this.#state.since !== since) return;
    }
  }

  /** Postgres is down: what is on the volume now? One look at a time. */
  #ended(): Promise<void> {
    this.#ending ??= this.#lookAtVolume().finally(() => {
      this.#ending = undefined;
    });
    return this.#ending;
  }

  async #lookAtVolume(): Promise<void> {
    this.#last = undefined;
    this.#applied = undefined;
    await this.#sql.close();
    this.#sql = new LocalSql(this.#o.installation.paths, { now: this.#o.now });
    this.#silence = undefined;
    try {
      await this.#readVolume();
    } catch (error) {
      this.#volumeProblem = { reason: 'VolumeUnreadable', message: messageOf(error) };
      throw error;
    }
    this.#volumeProblem = undefined;
    const { dataRoot } = this.#o.installation.paths;
    const left = findStaleProcesses(dataRoot);
    const process = left.length === 0 ? 'none' : isAllDoomed(dataRoot, left) ? 'ended' : 'leftovers';
    this.#o.guard.postmaster(0);
    this.#set({ process, since: this.#o.now(), walLost: false });
    if (process === 'ended') void this.#lookUntilFree();
  }

  async #readVolume(): Promise<void> {
    const { paths } = this.#o.installation;
    const found = this.#process.pid === undefined ? await prepareVolume(paths) : undefined;
    if (found?.kind === 'empty') {
      this.#identity = undefined;
      this.#held = undefined;
      this.#volume = { state: 'empty' };
      return;
    }
    if (found !== undefined) this.#identity = found.identity;
    if (found?.kind === 'tainted') {
      this.#volume = { state: 'tainted', why: found.taint.reason };
      return;
    }
    if (this.#identity === undefined) return;
    if (this.#identity.clusterId !== this.#o.clusterId)
      throw new Error(
        `the volume belongs to cluster ${this.#identity.clusterId}, not to ${this.#o.clusterId}`,
      );
    const control = await readControlData(this.#o.installation);
    this.#controlAtEnd = control;
    const timeline = Math.max(control.checkpointTimeline, control.minRecoveryEndTimeline);
    const promotion = await readPromotion(paths);
    this.#noteHeld(control.checkpointLsn);
    this.#noteHeld(control.minRecoveryEndLsn);
    this.#volume = {
      state: 'ready',
      dataId: this.#identity.dataId,
      systemIdentifier: control.systemIdentifier,
      bootstrap: this.#identity.bootstrap,
      promotedTerm: promotion.term,
      timeline,
      wrongParent: await this.#hasWrongParent(timeline, promotion),
    };
  }

  /** R6: the promotion that led to this timeline came from another one than was meant. */
  async #hasWrongParent(timeline: number, promotion: Promotion): Promise<boolean> {
    if (promotion.timeline !== timeline || promotion.parent === undefined) return false;
    const forks = await readTimelineHistory(this.#o.installation.paths, timeline).catch(() => undefined);
    return forks?.at(-1)?.timeline !== promotion.parent;
  }

  async #readAncestors(timeline: number): Promise<void> {
    this.#ancestors = {
      timeline,
      forks: (await readTimelineHistory(this.#o.installation.paths, timeline)) ?? [],
    };
  }

  #onLog(record: PostgresLogRecord): void {
    const { level, message, ...rest } = record;
    this.#o.log[level === 'fatal' ? 'error' : level]({ postgres: rest }, message);
    if (record.sqlState === diskFullState && (record.severity === 'PANIC' || record.severity === 'FATAL'))
      this.#endedForRoom = true;
    // A walreceiver passes on what its sender says; the words of anybody else, such as a user's query, count for nothing.
    if (
      record.backendType === 'walreceiver' &&
      /requested WAL segment \S+ has already been removed/.test(message) &&
      this.#state.observation?.inRecovery !== false
    )
      this.#walLost = true;
  }

  #set(state: PostgresFacts): void {
    this.#state = state;
    this.#o.onChange();
  }
}

/** Postgres's defaults of the settings that a standby may not have lower than its primary (guc_tables.c). */
const controlledDefaults: ControlledSettings = {
  max_connections: 100,
  max_worker_processes: 8,
  max_wal_senders: 10,
  max_prepared_transactions: 0,
  max_locks_per_transaction: 64,
};
const controlledNames = Object.keys(controlledDefaults) as (keyof ControlledSettings)[];

function wantedValue(
  name: keyof ControlledSettings,
  owned: Readonly<Record<string, string>>,
  user: Readonly<Record<string, string>>,
): number {
  return Number(owned[name] ?? user[name] ?? controlledDefaults[name]);
}

/** The result of a step, which is never left behind, unless the operation was interrupted meanwhile. */
async function step<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const result = await work;
  signal.throwIfAborted();
  return result;
}

function isForRoom(error: unknown): boolean {
  if (error instanceof PostgresError)
    return error.code === 'StartFailed' && error.found.includes('No space left on device');
  return error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT');
}

const inMebibytes = (bytes: number) => `${Math.floor(bytes / (1 << 20))} MiB`;

function isAllDoomed(dataRoot: string, processes: readonly number[]): boolean {
  const doomed = doomedProcesses(dataRoot);
  return processes.every((pid) => doomed.includes(pid));
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** An operation failed for a reason of its own. */
class OperationError extends Error {
  override readonly name = 'OperationError';
  readonly reason: string;
  readonly needsClone: boolean;
  constructor(reason: string, message: string, needsClone = false) {
    super(message);
    this.reason = reason;
    this.needsClone = needsClone;
  }
}

function toObservation(seen: SqlObservation, at: number, overridden: readonly string[]): Observation {
  return {
    at,
    inRecovery: seen.inRecovery,
    timeline: seen.timeline,
    ...(seen.flushLsn === null ? {} : { flushLsn: seen.flushLsn }),
    ...(seen.receiveLsn === null ? {} : { receivedLsn: seen.receiveLsn }),
    ...(seen.replayLsn === null ? {} : { replayedLsn: seen.replayLsn }),
    ...(seen.walReceiver === null
      ? {}
      : {
          receiver: { status: seen.walReceiver.status, senderHost: seen.walReceiver.senderHost ?? '' },
          ...(seen.walReceiver.receivedTimeline === null
            ? {}
            : { receivedTimeline: seen.walReceiver.receivedTimeline }),
        }),
    walsenders: seen.replication.map((r) => ({
      applicationName: r.applicationName,
      state: r.state ?? '',
      syncPriority: r.syncPriority ?? 0,
      ...(r.flushLsn === null ? {} : { flushLsn: r.flushLsn }),
    })),
    ...failoverSlots(seen),
    ...(seen.startupWaitEvent === 'RecoveryApplyDelay' ? { waitsToApply: true } : {}),
    commitWaitMs: seen.syncWaiters.longestMs,
    pendingRestart: seen.pendingRestart,
    overridden,
  };
}

function failoverSlots({ slots, inRecovery }: SqlObservation): Pick<Observation, 'failoverSlots'> {
  const usable = slots.filter((s) => s.failover && !s.temporary && s.walStatus !== 'lost');
  const names = usable.filter((s) => !inRecovery || s.synced).map((s) => s.name);
  return names.length === 0 ? {} : { failoverSlots: names };
}

function sameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((x, i) => x === b[i]);
}
