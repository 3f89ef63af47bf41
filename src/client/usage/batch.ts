import { BinaryWriter } from '@bufbuild/protobuf/wire';
import type { UsageLoss } from '../../../gen/ts/agentllm/v1/usage.js';
import { StreamUsageRequest } from '../../../gen/ts/agentllm/v1/usage_service.js';
import type { Entry } from './entry.js';

/** The maximum of a batch. With these numbers a request is below its limits even if all optional fields are set. */
export const BATCH = { records: 200, bytes: 1024 * 1024, losses: 100 };

/** The tag of the field `records` of StreamUsageRequest: number 2, with a length. */
const RECORDS_TAG = (2 << 3) | 2;

/** Attempts and losses that are sent and acknowledged together. */
export interface Batch {
  /** The sequence of the batch on the current stream; 0: the batch has not been sent on this stream. */
  sequence: number;
  readonly entries: readonly Entry[];
  readonly losses: readonly UsageLoss[];
}

/**
 * The encoded request. The entries are already encoded, and encoded fields of a protobuf message can be concatenated.
 */
export function requestOf({ sequence, entries, losses }: Batch): Buffer {
  const writer = new BinaryWriter();
  for (const { content } of entries) writer.uint32(RECORDS_TAG).bytes(content);
  const head = StreamUsageRequest.encode({ sequence: BigInt(sequence), records: [], losses: [...losses] }).finish();
  return Buffer.concat([head, writer.finish()]);
}

/**
 * Two halves of a batch, or one batch with the attempts and one with the losses; undefined if the batch cannot be
 * divided.
 */
export function divide({ entries, losses }: Batch): [Batch, Batch] | undefined {
  const sequence = 0;
  if (entries.length > 0 && losses.length > 0)
    return [
      { sequence, entries, losses: [] },
      { sequence, entries: [], losses },
    ];
  const parts = <T>(list: readonly T[]) => {
    const half = Math.ceil(list.length / 2);
    return [list.slice(0, half), list.slice(half)] as const;
  };
  const [left, right] = [parts(entries), parts(losses)];
  if (left[1].length + right[1].length === 0) return undefined;
  return [
    { sequence, entries: left[0], losses: right[0] },
    { sequence, entries: left[1], losses: right[1] },
  ];
}
