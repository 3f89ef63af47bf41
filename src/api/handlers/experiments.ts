import { randomBytes } from 'node:crypto';
import { Experiment as ExperimentMessage, ExperimentState } from '../../../gen/ts/agentllm/v1/experiment.js';
import {
  type CreateExperimentRequest,
  type ExperimentServiceService,
  type ListExperimentsRequest,
  ListExperimentsResponse,
  type UpdateExperimentRequest,
} from '../../../gen/ts/agentllm/v1/experiment_service.js';
import type { Draft } from '../../domain/draft.js';
import { newExperiment, patchExperiment, withBuckets } from '../../domain/experiments/experiment.js';
import { checkExperiment, fixedFields } from '../../domain/experiments/experiment_check.js';
import {
  experimentFields,
  experimentOutputOnly,
  newExperimentFields,
} from '../../domain/experiments/experiment_fields.js';
import { readPatch } from '../../domain/patch.js';
import type { Experiment } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import type { Handlers } from '../dispatch/method.js';
import { experimentMessage } from '../messages/experiments.js';
import { checkPage, pageOf } from '../messages/pages.js';
import type { Backend } from './backend.js';
import { concludeExperiment } from './conclude_experiment.js';
import {
  checkExperimentEtag,
  experimentOf,
  namedExperiment,
  refuseTakenName,
  requireState,
  writtenExperiment,
} from './experiment_requests.js';
import { getResults } from './experiment_results.js';
import { planPause, planResume, planStart } from './experiment_states.js';
import { read, write } from './read_write.js';
import { recordOutcome } from './record_outcome.js';
import { agentOf, checkRef, findAgent } from './requests.js';

export const experimentResponse = (experiment: Experiment, revision: bigint, state: State) => ({
  experiment: experimentMessage(state, experiment),
  revision,
});

/** The handlers of ExperimentService. */
export function experimentService(backend: Backend): Handlers<typeof ExperimentServiceService> {
  return {
    createExperiment: (call) => {
      // The salt is generated outside of the plan, because the plan can run more than once.
      const salt = randomBytes(SALT_BYTES).toString('hex');
      return write(backend, call, {
        plan: (state, draft, problems) => planCreate(state, draft, problems, call.request, salt),
        respond: experimentResponse,
      });
    },

    getExperiment: (call) =>
      read(backend, call, (state) => ({
        experiment: experimentMessage(state, namedExperiment(state, call.request)),
        revision: BigInt(state.revision),
      })),

    listExperiments: (call) => read(backend, call, (state) => listExperiments(state, call.request)),

    updateExperiment: (call) =>
      write(backend, call, {
        plan: (state, draft, problems) => planUpdate(state, draft, problems, call.request),
        respond: experimentResponse,
      }),

    deleteExperiment: (call) =>
      write(backend, call, {
        plan(state, draft, problems) {
          const experiment = writtenExperiment(state, problems, call.request);
          const rule = 'only a DRAFT or CONCLUDED experiment can be deleted';
          requireState(experiment, ['EXPERIMENT_STATE_DRAFT', 'EXPERIMENT_STATE_CONCLUDED'], rule);
          draft.remove('experiment', experiment);
        },
        respond: (_, revision) => ({ revision }),
      }),

    startExperiment: (call) =>
      write(backend, call, {
        plan: (state, draft, problems) => planStart(state, draft, problems, call.request),
        respond: experimentResponse,
      }),

    pauseExperiment: (call) =>
      write(backend, call, {
        plan: (state, draft, problems) => planPause(state, draft, problems, call.request),
        respond: experimentResponse,
      }),

    resumeExperiment: (call) =>
      write(backend, call, {
        plan: (state, draft, problems) => planResume(state, draft, problems, call.request),
        respond: experimentResponse,
      }),

    concludeExperiment: (call) => concludeExperiment(backend, call),

    getResults: (call) => read(backend, call, (state) => getResults(backend, state, call)),

    recordOutcome: (call) => recordOutcome(backend, call),
  };
}

const SALT_BYTES = 16;

function planCreate(
  state: State,
  draft: Draft,
  problems: Problems,
  request: CreateExperimentRequest,
  salt: string,
): Experiment {
  const body = request.experiment ?? ExperimentMessage.create();
  const outputOnly = experimentOutputOnly;
  const patch = readPatch({ body, mask: [], specs: newExperimentFields, outputOnly, at: 'experiment' });
  checkRef(problems, request.agent);
  problems.addAll(patch.violations);
  const isReadable = !problems.any;
  const found = isReadable ? findAgent(state, request.agent ?? {}) : undefined;
  const row = patchExperiment(state, newExperiment(found?.id ?? 0, salt), patch);
  problems.addAll(checkExperiment(state, row, patch, { allowUnknownModel: request.allow_unknown_model }));
  // Without the agent of a valid reference, what depends on it cannot be checked. The missing agent is reported then.
  if (found || !isReadable) problems.throwIfAny();
  const agent = agentOf(state, request.agent);
  refuseTakenName(state, agent, row.name);
  const { experimentsPerAgent: max } = limits;
  if (state.experiments.ofAgent(agent.id).length >= max)
    throw ServiceError.of('TOO_MANY_EXPERIMENTS', { agent: agent.name, experiments: String(max) });
  return draft.create('experiment', withBuckets(draft, undefined, row));
}

function planUpdate(state: State, draft: Draft, problems: Problems, request: UpdateExperimentRequest): Experiment {
  const body = request.experiment ?? ExperimentMessage.create();
  checkRef(problems, request.agent);
  if (body.name === '') problems.add('experiment.name', 'is required');
  const agent = problems.any ? undefined : findAgent(state, request.agent ?? {});
  const before = agent && state.experiments.named(agent.id, body.name);
  const stored = before && experimentMessage(state, before);
  const mask = request.update_mask ?? [];
  const outputOnly = experimentOutputOnly;
  const patch = readPatch({ body, mask, specs: experimentFields, outputOnly, at: 'experiment', stored });
  problems.addAll(patch.violations);
  if (!before) {
    problems.throwIfAny();
    experimentOf(state, agentOf(state, request.agent), body.name);
  }
  const found = before as Experiment;
  const row = patchExperiment(state, found, patch);
  problems.addAll(checkExperiment(state, row, patch, { allowUnknownModel: request.allow_unknown_model }));
  problems.addAll(fixedFields(found, row));
  problems.throwIfAny();
  checkExperimentEtag(state, found, body.etag);
  const rule = 'it cannot be changed';
  requireState(found, ['EXPERIMENT_STATE_DRAFT', 'EXPERIMENT_STATE_RUNNING', 'EXPERIMENT_STATE_PAUSED'], rule);
  return draft.update('experiment', found, withBuckets(draft, found, row));
}

const STATES: readonly ExperimentState[] = Object.values(ExperimentState).filter(
  (state) => state !== ExperimentState.UNSPECIFIED && state !== ExperimentState.UNRECOGNIZED,
);

function listExperiments(state: State, request: ListExperimentsRequest): Buffer {
  const problems = new Problems();
  checkPage(problems, request);
  if (request.agent) checkRef(problems, request.agent);
  for (const [at, one] of request.states.entries())
    if (!STATES.includes(one)) problems.add(`states[${at}]`, 'must be one of ExperimentState');
  problems.throwIfAny();
  const agent = request.agent && agentOf(state, request.agent);
  return pageOf(request, {
    type: ListExperimentsResponse,
    revision: state.revision,
    values: state.experiments.inOrder,
    keyOf: (experiment) => [experiment.id],
    filter: ['experiments', agent?.id, request.states],
    keep: (experiment) =>
      (agent === undefined || experiment.agent_id === agent.id) &&
      (request.states.length === 0 || request.states.includes(experiment.state)),
    rowOf: (experiment) => ({ experiments: [experimentMessage(state, experiment)] }),
  });
}
