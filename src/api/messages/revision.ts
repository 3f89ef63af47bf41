import { GetConfigResponse } from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';

/**
 * An encoded answer at a revision. Fields of protobuf messages concatenate, and the revision is number 2 in every
 * answer, so what stands ready without it serves at any.
 */
export const withRevision = (answer: Uint8Array, revision: number): Buffer =>
  Buffer.concat([answer, encodedRevision(revision)]);

let newest: { revision: number; bytes: Uint8Array } = { revision: 0, bytes: new Uint8Array() };

function encodedRevision(revision: number): Uint8Array {
  if (newest.revision !== revision) {
    const bytes = GetConfigResponse.encode({ config: undefined, revision: BigInt(revision) }).finish();
    newest = { revision, bytes };
  }
  return newest.bytes;
}
