import type {
  RollbackConfigRequest,
  RollbackConfigResponse,
} from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { newConfig } from '../../domain/config.js';
import { keyProblem } from '../../domain/credential.js';
import type { Draft } from '../../domain/draft.js';
import { keyFits, modelsPass, patchBack } from '../../domain/rollback.js';
import type { Config } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { Problems } from '../../problems.js';
import type { Call } from '../dispatch/method.js';
import { etagOf } from '../messages/entities.js';
import type { Backend } from './backend.js';
import { type Earlier, existingConfigAt } from './historical_config.js';
import { write } from './read_write.js';
import { agentOf, checkEtag, idProblem, revisionProblem } from './requests.js';
import { type ConfigRequest, configResponse, draftProposal, proposeUpdate } from './write_config.js';

/**
 * Rolls a config back to a revision. The history is read before the write is planned, because plans are pure and the
 * past does not change. The plan throws an error of that read: the problems of the fields take precedence, and a retry
 * of a committed write gets its stored response.
 */
export async function rollbackConfig(
  backend: Backend,
  call: Call<RollbackConfigRequest, RollbackConfigResponse>,
): Promise<Uint8Array> {
  const { id, to_revision } = call.request;
  const earlier = checkRollback(new Problems(), call.request).any
    ? undefined
    : await existingConfigAt(backend, id, to_revision, call.signal).catch(asFailure);
  return write(backend, call, {
    plan(state, draft, problems) {
      checkRollback(problems, call.request).throwIfAny();
      if (!earlier || earlier instanceof ServiceError) throw earlier;
      return planRollback(state, draft, problems, call.request, earlier);
    },
    respond: configResponse,
  });
}

function asFailure(error: unknown): ServiceError {
  if (error instanceof ServiceError) return error;
  throw error;
}

/** Adds the problems of the request. */
function checkRollback(problems: Problems, { id, to_revision, api_key, without_key }: RollbackConfigRequest): Problems {
  problems.add('id', idProblem(id));
  problems.add('to_revision', revisionProblem(to_revision));
  if (api_key !== undefined) problems.add('api_key', keyProblem(api_key));
  if (api_key !== undefined && without_key) problems.add('without_key', 'must not be set together with api_key');
  return problems;
}

function planRollback(
  state: State,
  draft: Draft,
  problems: Problems,
  request: RollbackConfigRequest,
  earlier: Earlier,
): Config {
  const { id, etag } = request;
  const stored = state.configs.get(id);
  const current = stored && { state, config: stored };
  agentOf(state, { id: earlier.config.agent_id });
  const keepsKey = keyFits(earlier, current) && !request.without_key;
  // A restored row must not keep the ciphertext of the deleted row.
  const clear_api_key = stored?.key_id !== null && !keepsKey;
  const change: ConfigRequest = { clear_api_key, allow_unknown_model: modelsPass(earlier, state) };
  const proposal = proposeUpdate(state, stored ?? deleted(earlier.config), patchBack(earlier, current), change);
  problems.addAll(proposal.violations);
  checkCredential(state, problems, proposal.row, request);
  problems.throwIfAny();
  checkEtag(etag, stored && etagOf(state, stored), `Config ${id}`);
  const hadKey = earlier.config.key_id !== null;
  if (hadKey && !keepsKey && !request.without_key && request.api_key === undefined)
    throw notRestorable(request, earlier);
  const api_key = request.api_key;
  return draftProposal(state, draft, { ...proposal, before: stored }, { ...change, api_key });
}

/** The base row for a rollback of a deleted config: a new config with the same id. */
export const deleted = ({ id, agent_id, created_at }: Config): Config => ({
  ...newConfig(agent_id, 0),
  id,
  created_at,
});

/** Checks the credential of the earlier state, which is found by its name and may have been replaced. */
function checkCredential(state: State, problems: Problems, row: Config, { api_key }: RollbackConfigRequest): void {
  const credential = row.credential_id === null ? undefined : state.credentials.get(row.credential_id);
  if (!credential) return;
  const shown = JSON.stringify(credential.name);
  if (api_key !== undefined) problems.add('api_key', `must not be set: the config uses credential ${shown} again`);
  if (credential.provider !== row.provider)
    problems.add('config.credential_name', `credential ${shown} is for ${credential.provider}, not ${row.provider}`);
}

function notRestorable({ id, to_revision }: RollbackConfigRequest, { config: { provider } }: Earlier): ServiceError {
  const resources = [{ type: 'config', name: String(id) }] as const;
  return ServiceError.of(
    'KEY_NOT_RESTORABLE',
    { id: String(id), provider, revision: String(to_revision) },
    { resources },
  );
}
