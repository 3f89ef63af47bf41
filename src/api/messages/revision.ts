import { GetConfigResponse } from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';

/**
 * Adds a revision to an encoded response. Concatenated protobuf messages merge their fields, and the revision is field
 * 2 of every response, so a cached response without it can be used at every revision.
 */
export const withRevision = (response: Uint8Array, revision: number): Buffer =>
  Buffer.concat([response, encodedRevision(revision)]);

let newest: { revision: number; bytes: Uint8Array } = { revision: 0, bytes: new Uint8Array() };

function encodedRevision(revision: number): Uint8Array {
  if (newest.revision !== revision) {
    const bytes = GetConfigResponse.encode({ config: undefined, revision: BigInt(revision) }).finish();
    newest = { revision, bytes };
  }
  return newest.bytes;
}
