import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Metadata, status } from '@grpc/grpc-js';
import { onTestFinished } from 'vitest';
import { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import type { UsageResult } from '../../../gen/ts/agentllm/v1/usage.js';
import { StreamUsageRequest, type StreamUsageResponse } from '../../../gen/ts/agentllm/v1/usage_service.js';
import { ErrorInfo } from '../../../gen/ts/google/rpc/error_details.js';
import { Status } from '../../../gen/ts/google/rpc/status.js';
import { AgentLLMError } from '../../../src/client/error.js';
import type { Clock } from '../../../src/client/runtime/clock.js';
import { Spool } from '../../../src/client/usage/spool.js';
import { SpoolDisk } from '../../../src/client/usage/spool_disk.js';
import { SpoolWarnings } from '../../../src/client/usage/spool_warnings.js';
import { UsageSender } from '../../../src/client/usage/usage_sender.js';
import type { OpenStream, StreamObserver } from '../../../src/client/usage/usage_stream.js';
import type { ClientWarning } from '../../../src/client/warning.js';
import { VirtualClock } from '../../../src/fake_provider/clock.js';

/** A directory that is removed at the end of the test. */
export async function makeDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'agentllm-spool-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  return join(directory, 'usage');
}

/** A receipt with attempts; by default with one. */
export const receipt = (attempts = 1, agent = 'trader'): Receipt =>
  Receipt.fromPartial({
    receipt_id: randomUUID(),
    agent_id: 1,
    agent,
    revision: 7n,
    run_id: 'run-1',
    attempts: Array.from({ length: attempts }, () => ({
      attempt_id: randomUUID(),
      provider: 'openai',
      model_name: 'gpt-5.4',
      started_at: new Date(),
      usage: { input_tokens: 10, output_tokens: 5 },
    })),
  });

/** The ids of the attempts of receipts. */
export const idsOf = (...receipts: readonly Receipt[]): string[] =>
  receipts.flatMap(({ attempts }) => attempts.map(({ attempt_id }) => attempt_id));

/** The clock of a test, whose timers run when the test advances it. */
export class TestClock implements Clock {
  readonly virtual = new VirtualClock();
  now = () => this.virtual.now();
  date = () => new Date(this.virtual.now());
  after = (ms: number, callback: () => void) => this.virtual.schedule(ms, callback);
}

/** An error as the service sends it. */
export function remoteError(code: number, reason = '', message = 'no'): AgentLLMError {
  const metadata = new Metadata();
  const info = ErrorInfo.encode(ErrorInfo.fromPartial({ reason, domain: 'agentllm' })).finish();
  const details = [{ type_url: 'type.googleapis.com/google.rpc.ErrorInfo', value: Buffer.from(info) }];
  const trailer = Status.encode(Status.fromPartial({ code, message, details })).finish();
  if (reason) metadata.set('grpc-status-details-bin', Buffer.from(trailer));
  return AgentLLMError.from(Object.assign(new Error(message), { code, details: message, metadata }), 'StreamUsage');
}

export const unavailable = () => remoteError(status.UNAVAILABLE);

/** The side of the service of one stream. */
export class FakeStream {
  readonly requests: StreamUsageRequest[] = [];
  isEnded = false;
  isAborted = false;
  acknowledged = 0;

  constructor(readonly observer: StreamObserver) {}

  open(): this {
    this.observer.opened({
      send: (bytes) => void this.requests.push(StreamUsageRequest.decode(bytes)),
      end: () => {
        this.isEnded = true;
      },
    });
    return this;
  }

  /** Acknowledges the next batches in order. */
  acknowledge(count = 1, rejected: readonly Partial<UsageResult>[] = []): void {
    for (let at = 0; at < count; at++) {
      const { sequence = 0n, records = [] } = this.requests[this.acknowledged++] ?? {};
      const new_count = records.length - rejected.length;
      const response = { sequence, revision: 7n, new_count, known_count: 0, rejected: rejected as UsageResult[] };
      this.observer.acknowledged(response satisfies StreamUsageResponse);
    }
  }

  end(error?: AgentLLMError): void {
    this.observer.ended(error);
  }

  get ids(): string[] {
    return this.requests.flatMap(({ records }) => records.map(({ attempt }) => attempt?.attempt_id ?? ''));
  }
}

/** A service whose streams a test controls. */
export class FakeService {
  readonly streams: FakeStream[] = [];
  /** Whether new streams open at once. */
  opens = true;

  readonly open: OpenStream = (observer) => {
    const stream = new FakeStream(observer);
    this.streams.push(stream);
    if (this.opens) stream.open();
    return () => {
      stream.isAborted = true;
      observer.ended(AgentLLMError.here('aborted', { code: 'CANCELLED', method: 'StreamUsage' }));
    };
  };

  get last(): FakeStream {
    return this.streams.at(-1) as FakeStream;
  }
}

export interface SpoolOptions {
  readonly directory?: string;
  readonly maxMemoryRecords?: number;
  readonly maxDiskBytes?: number;
}

/** A spool with its sender and a fake service. */
export function startSpool({
  directory,
  maxMemoryRecords = 10_000,
  maxDiskBytes = 64 * 1024 * 1024,
}: SpoolOptions = {}) {
  const clock = new TestClock();
  const warned: ClientWarning['kind'][] = [];
  const messages: string[] = [];
  const warnings = new SpoolWarnings(
    (kind, message) => {
      warned.push(kind);
      messages.push(message);
    },
    clock,
    directory,
  );
  const disk = directory === undefined ? undefined : new SpoolDisk(directory, maxDiskBytes);
  const spool = new Spool({ maxMemoryRecords, disk, clock, warnings });
  const service = new FakeService();
  const backoff = { next: (ms = 0) => Math.max(ms, 1_000), longest: () => 5_000, reset: () => {} };
  const sender = new UsageSender({ spool, open: service.open, clock, warnings, backoff });
  onTestFinished(async () => {
    sender.close();
    await spool.close();
  });
  return { clock: clock.virtual, spool, sender, service, warned, messages, disk };
}
