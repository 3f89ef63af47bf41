import { setTimeout as sleep } from 'node:timers/promises';
import { UsageStatus } from '../../../gen/ts/agentllm/v1/usage.js';
import { type StreamUsageRequest, StreamUsageResponse } from '../../../gen/ts/agentllm/v1/usage_service.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { invalidFields } from '../../problems.js';
import type { DuplexCall, ReceivedMessage } from '../dispatch/method.js';
import { type RecordedUsage, recordUsage, type UsageBackend } from './record_usage.js';

/** The number of unacknowledged bytes of a stream above which no further batch is received. */
const BYTES_IN_FLIGHT = 1024 * 1024;

/** Records the batches of a stream, and acknowledges each batch in order after its commit. */
export async function streamUsage(backend: UsageBackend, call: DuplexCall<StreamUsageRequest>): Promise<void> {
  const batches = new BatchesInFlight(backend, call);
  try {
    for await (const message of call.messages) await batches.start(message);
  } finally {
    // Received batches are still acknowledged, for example at the shutdown of the service.
    await batches.ended().catch((error) => call.sink.end(error));
  }
}

class BatchesInFlight {
  private readonly pending: { readonly bytes: number; readonly acknowledged: Promise<void> }[] = [];
  private last = Promise.resolve();
  private sequence = 0n;

  constructor(
    private readonly backend: UsageBackend,
    private readonly call: DuplexCall<StreamUsageRequest>,
  ) {}

  /** Starts to record a batch. Resolves when another batch may be received. */
  async start(message: ReceivedMessage<StreamUsageRequest>): Promise<void> {
    const { sequence } = message.request;
    if (sequence <= this.sequence)
      throw invalidFields([
        { field: 'sequence', description: `must be greater than ${this.sequence}, not ${sequence}` },
      ]);
    this.sequence = sequence;
    const { principal, signal, sink } = this.call;
    const recorded = recordUsage(this.backend, principal, message.request, signal);
    this.last = this.acknowledge(this.last, message, recorded);
    // The stream ends with the error even if no further batch arrives.
    this.last.catch((error) => sink.end(error));
    this.pending.push({ bytes: message.bytes, acknowledged: this.last });
    while (this.isFull) await this.pending.shift()?.acknowledged;
  }

  ended(): Promise<void> {
    return this.last;
  }

  private get isFull(): boolean {
    const bytes = this.pending.reduce((sum, batch) => sum + batch.bytes, 0);
    return this.pending.length >= limits.usageBatchesInFlight || (this.pending.length > 0 && bytes > BYTES_IN_FLIGHT);
  }

  private async acknowledge(
    previous: Promise<void>,
    { request, release }: ReceivedMessage<StreamUsageRequest>,
    recording: Promise<RecordedUsage>,
  ): Promise<void> {
    // Both are awaited, so that neither rejects unobserved.
    const [earlier, recorded] = await Promise.allSettled([previous, recording]);
    release();
    if (earlier.status === 'rejected') throw earlier.reason;
    if (recorded.status === 'rejected') throw recorded.reason;
    const { sink } = this.call;
    if (!sink.write(acknowledgement(request.sequence, recorded.value))) await this.untilRead();
  }

  /** Disconnects a client that reads no acknowledgement for a long time. */
  private async untilRead(): Promise<void> {
    const controller = new AbortController();
    const drained = this.call.sink.drained().then(() => true);
    const late = sleep(limits.slowConsumerMs, false, { ref: false, signal: controller.signal }).catch(() => true);
    const isRead = await Promise.race([drained, late]);
    controller.abort();
    if (!isRead) throw ServiceError.of('SLOW_CONSUMER', { seconds: `${limits.slowConsumerMs / 1000}` });
  }
}

function acknowledgement(sequence: bigint, { results, revision }: RecordedUsage): Buffer {
  const count = (status: UsageStatus) => results.filter((result) => result.status === status).length;
  const rejected = results.filter(({ status }) => status === UsageStatus.REJECTED);
  return Buffer.from(
    StreamUsageResponse.encode({
      sequence,
      revision: BigInt(revision),
      new_count: count(UsageStatus.NEW),
      known_count: count(UsageStatus.KNOWN),
      rejected,
    }).finish(),
  );
}
