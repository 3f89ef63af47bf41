import { randomUUID } from 'node:crypto';
import type { AgentRef } from '../../../gen/ts/agentllm/v1/agent.js';
import {
  AgentLLMConfigWatchServiceService,
  type WatchStarted,
} from '../../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { AckBatcher } from '../../client/ack_batcher.js';
import { Acknowledger } from '../../client/acknowledgements.js';
import type { Connection } from '../../client/connection.js';
import { AgentLLMError } from '../../client/index.js';
import type { Batch } from '../../client/view.js';
import { type WatchObserver, WatchStream } from '../../client/watch_stream.js';
import { limits } from '../../limits.js';
import { version } from '../../package.js';
import { DEFAULT_TIMEOUT_MS, openStream } from '../kit/connection.js';
import { Exit } from '../kit/error_output.js';
import { UsageError } from '../kit/inputs.js';
import { counted, terminal, toJson, visible } from '../kit/print.js';
import type { Call, RemoteCommand } from '../kit/remote_command.js';
import { agent, flag, integer, list, word } from '../kit/values.js';
import { changeBlock } from './changes.js';
import { changeRecordOfDiff, type WatchDiff, WatchState } from './watch_diff.js';

/** `agentllm watch`: prints changes as they are committed. */
export const watch: RemoteCommand = {
  name: 'watch',
  description: 'show changes as they are committed, with actor, method, reason and fields; until Ctrl-C',
  more: `If the connection is lost, the command reconnects and shows the changes that it missed. It is listed in agentllm
watchers. With --json it prints a line of JSON for each revision; --since continues after the resume_token of a line.
Exit code 1: the time of --for ended before --count was reached.`,
  inputs: [
    { name: '[agents...]', to: 'agents', kind: list(agent), help: 'the agents, by names or ids (default: all)' },
    { name: 'all', to: 'all_agents', kind: flag, help: 'all agents, including future ones; the default' },
    { name: 'count', kind: integer, help: 'end after this number of revisions' },
    { name: 'for', kind: { ...integer, value: 'ms' }, help: 'end after this time' },
    {
      name: 'since',
      to: 'resume_token',
      kind: word('token'),
      help: 'continue after this resume_token, for the same agents',
    },
  ],
  examples: [
    ['agentllm watch', 'all agents'],
    ['agentllm watch trader market_analyst --json', 'two agents, for a program'],
    ['agentllm watch trader --for 1000', 'for a second'],
  ],
  next: 'agentllm history shows earlier changes, agentllm watchers the watching processes',
  async run(call) {
    for (const name of ['count', 'for'])
      if ((call.local<number>(name) ?? 1) < 1)
        throw UsageError.of([{ typed: `--${name} ${call.local(name)}`, description: 'must be at least 1' }]);
    const { message } = call.inputs;
    if ('agents' in message && 'all_agents' in message) throw new UsageError('name agents or use --all, not both');
    const connection = openStream(call.inputs.local);
    // An open stream does not keep the process running; a timer does.
    const keepAlive = setInterval(() => {}, limits.maxTimerMs);
    const printer = new WatchPrinter(call, connection);
    try {
      return await printer.ended;
    } finally {
      await printer.close();
      await connection.close();
      clearInterval(keepAlive);
    }
  },
};

/** Prints the changes of a watch until --count, --for or an interrupt ends it. */
class WatchPrinter implements WatchObserver {
  /** The exit code; rejects with an error that a retry does not resolve. */
  readonly ended: Promise<number>;
  token: string;
  private readonly state = new WatchState();
  private readonly names: readonly string[];
  private readonly acknowledger: Acknowledger;
  private readonly stream: WatchStream;
  private readonly timers: NodeJS.Timeout[] = [];
  private printed = 0;
  /** The last connection error; undefined while the stream is open. */
  private failure: AgentLLMError | undefined;
  private hasStarted = false;
  private resolve: (code: number) => void = () => {};
  private reject: (error: AgentLLMError) => void = () => {};
  private readonly interrupted = () => this.resolve(Exit.done);

  constructor(
    private readonly call: Call,
    connection: Connection,
  ) {
    const { message, local } = call.inputs;
    const agents = (message['agents'] ?? []) as AgentRef[];
    this.names = agents.map(({ name, id }) => name ?? `#${id}`);
    this.token = (message['resume_token'] as string | undefined) ?? '';
    this.ended = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, this.interrupted);
    const client_id = randomUUID();
    const client = { client_id, client_name: 'agentllm watch', client_version: version };
    // This command acknowledges each revision, so that a write with wait_for_adoption does not wait for this watcher.
    this.acknowledger = new Acknowledger(connection, client_id, new AckBatcher());
    this.stream = new WatchStream(connection, { agents, all_agents: agents.length === 0, ...client }, this);
    const timeoutMs = (local.get('timeout') as number | undefined) ?? DEFAULT_TIMEOUT_MS;
    this.timers.push(
      setTimeout(() => this.hasStarted || this.reject(this.failure ?? this.silence(timeoutMs)), timeoutMs),
    );
  }

  async close(): Promise<void> {
    for (const timer of this.timers) clearTimeout(timer);
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, this.interrupted);
    if (this.hasStarted && !this.failure) await this.acknowledger.end();
    this.acknowledger.stop();
    await this.stream.close();
  }

  started({ resumed }: WatchStarted): void {
    this.acknowledger.restart();
    if (this.hasStarted) terminal.err(resumed ? 'reconnected, without a gap' : 'reconnected');
    else if (resumed) terminal.err(`watching ${this.watched()}, after the resume token`);
    this.failure = undefined;
    if (!this.hasStarted) this.begin();
  }

  batch(batch: Batch): void {
    const diffs = this.state.apply(batch);
    this.token = batch.token;
    this.acknowledger.apply(batch.revision, false);
    if (batch.snapshot && diffs.length === 0) this.printTarget(batch.revision);
    else this.print(batch, diffs);
  }

  bookmark(revision: bigint, token: string): void {
    this.token = token;
    this.acknowledger.apply(revision, true);
  }

  broken(error: AgentLLMError, lasting: boolean): void {
    if (lasting) this.reject(error);
    else if (this.hasStarted && !this.failure)
      terminal.err(`connection lost (${visible(error.message)}); reconnecting`);
    this.failure = error;
  }

  startOver(): void {
    // An unusable token of --since is an error; it does not silently start a new watch.
    if (!this.hasStarted) setImmediate(() => this.failure && this.reject(this.failure));
    this.token = '';
  }

  /** The error when the service accepts the connection and does not respond. */
  private silence(timeoutMs: number): AgentLLMError {
    const method = AgentLLMConfigWatchServiceService.watchConfigs.path.slice(1);
    const text = `No response from ${this.call.address} within ${timeoutMs} ms`;
    return AgentLLMError.here(text, { code: 'DEADLINE_EXCEEDED', method });
  }

  private begin(): void {
    this.hasStarted = true;
    const ms = this.call.local<number>('for');
    const unmet = this.call.local<number>('count') !== undefined;
    if (ms !== undefined)
      this.timers.push(
        setTimeout(() => this.resolve(unmet ? Exit.failed : Exit.done), Math.min(ms, limits.maxTimerMs)),
      );
  }

  private watched(): string {
    return this.names.length === 0 ? 'all agents' : this.names.map(visible).join(', ');
  }

  private printTarget(revision: bigint): void {
    const what = this.names.length === 0 ? `all ${counted(this.state.agentCount, 'agent')}` : this.watched();
    terminal.err(`watching ${what} from revision ${revision}`);
    for (const name of this.state.missing) terminal.err(`there is no agent ${visible(name)} yet`);
  }

  private print({ revision, token, cause, snapshot }: Batch, happened: readonly WatchDiff[]): void {
    // Further changes can arrive together with the last one that --count permits.
    if (this.printed === this.call.local<number>('count')) return;
    if (this.call.json) {
      const changes = happened.map(({ before: _, ...one }) => one);
      terminal.out(toJson({ revision, resume_token: token, ...(cause && { cause }), snapshot, changes }, 0));
    } else {
      const gap = {
        subject: 'all',
        what: 'read again as a snapshot; agentllm history shows who made the changes in between, and why',
      };
      const records = happened.map(changeRecordOfDiff);
      terminal.out(`${changeBlock({ revision, ...cause, records: snapshot ? [gap, ...records] : records })}`);
    }
    this.printed++;
    if (this.printed === this.call.local<number>('count')) this.resolve(Exit.done);
  }
}
