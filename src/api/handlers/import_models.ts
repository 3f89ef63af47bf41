import type {
  ImportFormat,
  ImportModelsRequest,
  ImportModelsResponse,
  PriceProposal,
} from '../../../gen/ts/agentllm/v1/provider_service.js';
import type { Draft } from '../../domain/draft.js';
import { integer, text, time } from '../../domain/fields.js';
import { startNow } from '../../domain/price_book.js';
import type { ImportedModel } from '../../domain/price_import/entry.js';
import { JsonError, JsonReader, type JsonValue } from '../../domain/price_import/json.js';
import { litellmModels } from '../../domain/price_import/litellm.js';
import { modelsDevModels } from '../../domain/price_import/models_dev.js';
import { type Comparison, compare, newModelOf, type Proposal } from '../../domain/price_import/proposals.js';
import type { Price } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { limits } from '../../limits.js';
import type { Problems } from '../../problems.js';
import { inSlices, timeSlice } from '../../time_slice.js';
import type { Call } from '../dispatch/method.js';
import { priceMessage } from '../messages/entities.js';
import type { Backend } from './backend.js';
import { addPrice } from './models.js';
import { markChangedByOperator } from './prices.js';
import { write } from './read_write.js';

type ImportCall = Call<ImportModelsRequest, ImportModelsResponse>;

interface Format {
  readonly name: string;
  /** A description of the entries of the format, for the error about a file of another format. */
  readonly entry: string;
  models(file: JsonValue): Iterable<ImportedModel | undefined>;
}

const FORMATS: Partial<Record<ImportFormat, Format>> = {
  IMPORT_FORMAT_LITELLM: { name: 'LiteLLM', entry: 'a model with `litellm_provider`', models: litellmModels },
  IMPORT_FORMAT_MODELS_DEV: { name: 'models.dev', entry: 'a provider with `models`', models: modelsDevModels },
};

/** Compares the price book with a public catalogue, and applies the accepted prices. */
export async function importModels(backend: Backend, call: ImportCall): Promise<Uint8Array> {
  const { request } = call;
  const format = FORMATS[request.format];
  // The file is read before the plan, because the plan can run more than once and must be short.
  const read = format
    ? await readFile(backend.store.state, format, request.content, call.signal)
    : { problem: undefined, models: [] };
  return write(backend, call, {
    plan(state, draft, problems) {
      if (!format) problems.add('format', 'is required');
      problems.add('content', read.problem);
      const providers = checkRequest(state, request, problems);
      problems.throwIfAny();
      const comparison = compare(state, read.models, { providers, newModels: request.new_models, now: draft.now });
      const accepted = acceptedModels(state, request, comparison, problems);
      problems.throwIfAny();
      const source = sourceOf(request, format as Format, draft.now);
      const applied = new Map(
        accepted.map((proposal) => [proposal, apply(state, draft, proposal, source, request.as_of)]),
      );
      return { comparison, applied, source };
    },
    respond: ({ comparison: { proposals, unchanged, skipped }, applied, source }, revision) => ({
      proposals: listed(proposals, applied).map((proposal) => messageOf(proposal, applied.get(proposal), source)),
      revision,
      proposal_count: proposals.length,
      applied_count: applied.size,
      unchanged_count: unchanged,
      skipped: skipped.slice(0, limits.importSkipped),
    }),
  });
}

interface ReadFile {
  readonly problem: string | undefined;
  readonly models: readonly ImportedModel[];
}

const TOKENS_PER_STEP = 1000;

/**
 * Reads a file in time slices. A file of another format is a problem of the request; an invalid entry is part of the
 * result.
 */
async function readFile(state: State, format: Format, content: Uint8Array, signal: AbortSignal): Promise<ReadFile> {
  const problemOf = (problem: string): ReadFile => ({ problem, models: [] });
  if (content.length === 0) return problemOf('is required');
  if (content.length > limits.importBytes)
    return problemOf(`must have at most ${limits.importBytes} bytes, not ${content.length}`);
  try {
    const file = await readJson(decode(content), signal);
    const models: ImportedModel[] = [];
    let hasForm = false;
    for await (const model of inSlices(format.models(file), () => signal.aborted)) {
      hasForm ||= model !== undefined;
      // The plan compares all models without interruption, so their number is limited.
      if (model && state.provider(model.provider)) models.push(model);
      if (models.length > limits.importEntries)
        return problemOf(`must have at most ${limits.importEntries} models of known providers`);
    }
    signal.throwIfAborted();
    return hasForm ? { problem: undefined, models } : problemOf(`must be a file of ${format.name}: ${format.entry}`);
  } catch (error) {
    if (error instanceof JsonError) return problemOf(error.message);
    throw error;
  }
}

function decode(content: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(content);
  } catch {
    throw new JsonError('must be JSON in UTF-8');
  }
}

async function readJson(json: string, signal: AbortSignal): Promise<JsonValue> {
  const reader = new JsonReader(json, { depth: limits.jsonDepth, values: limits.importValues });
  for (;;) {
    const value = reader.step(TOKENS_PER_STEP);
    if (value !== undefined) return value;
    signal.throwIfAborted();
    if (timeSlice.isSpent) await timeSlice.next();
  }
}

/** Adds the problems of the other fields. Returns the providers whose models are compared; undefined: all. */
function checkRequest(state: State, request: ImportModelsRequest, problems: Problems): Set<string> | undefined {
  const { source, as_of, apply_up_to_drift_percent: drift } = request;
  problems.add('source', text(limits.importSource).safeParse(source).error?.issues[0]?.message);
  if (as_of) problems.add('as_of', time.safeParse(as_of).error?.issues[0]?.message);
  if (drift !== undefined)
    problems.add('apply_up_to_drift_percent', integer(limits.driftPercent).safeParse(drift).error?.issues[0]?.message);
  const names = new Set<string>();
  for (const [at, name] of request.providers.entries()) {
    const provider = state.provider(name);
    if (provider) names.add(provider.name);
    else problems.add(`providers[${at}]`, 'must be a provider of the catalogue');
  }
  return request.providers.length > 0 ? names : undefined;
}

/** The proposals that the request accepts, by name or by their drift. */
function acceptedModels(
  state: State,
  { accept, apply_up_to_drift_percent: maxDrift }: ImportModelsRequest,
  { proposals }: Comparison,
  problems: Problems,
): Proposal[] {
  const byName = new Map(proposals.map((proposal) => [`${proposal.provider}/${proposal.name}`, proposal]));
  const named = new Set<Proposal>();
  for (const [at, written] of accept.entries()) {
    const [owner = '', ...name] = written.split('/');
    const proposal = byName.get(`${state.provider(owner)?.name ?? owner}/${name.join('/')}`);
    if (proposal) named.add(proposal);
    else problems.add(`accept[${at}]`, 'must be a model with a proposal, as provider/model');
  }
  const isSmall = ({ drift }: Proposal) => maxDrift !== undefined && drift !== undefined && drift <= maxDrift;
  const accepted = proposals.filter((proposal) => named.has(proposal) || isSmall(proposal));
  if (accepted.length > limits.importProposals)
    problems.add(
      'apply_up_to_drift_percent',
      `would apply ${accepted.length} prices, more than ${limits.importProposals}; limit the import with providers`,
    );
  return accepted;
}

/** The source of the applied prices, with the date of the file. */
const sourceOf = ({ source, as_of }: ImportModelsRequest, { name }: Format, now: Date): string =>
  `${source || name}, ${(as_of ?? now).toISOString().slice(0, 10)}`;

function apply(state: State, draft: Draft, proposal: Proposal, source: string, asOf: Date | undefined): Price {
  const { model: existing, proposed } = proposal;
  if (existing) markChangedByOperator(draft, existing);
  const model = existing ?? draft.create('model', { ...newModelOf(proposal), as_of: asOf ?? draft.now });
  const prices = existing ? state.pricesOf(existing.id) : [];
  return addPrice(draft, model, { ...proposed, source }, startNow(prices, draft.now));
}

/** The proposals of the response. If there are too many, applied proposals come first. */
function listed(proposals: readonly Proposal[], applied: ReadonlyMap<Proposal, Price>): readonly Proposal[] {
  if (proposals.length <= limits.importProposals) return proposals;
  const others = proposals.filter((proposal) => !applied.has(proposal));
  return [...applied.keys(), ...others].slice(0, limits.importProposals);
}

const messageOf = (proposal: Proposal, applied: Price | undefined, source: string): PriceProposal => ({
  provider: proposal.provider,
  model_name: proposal.name,
  kind: proposal.kind,
  proposed: priceMessage(applied ?? { ...proposal.proposed, source, valid_from: undefined, revision: 0 }),
  current: proposal.current && priceMessage(proposal.current),
  drift_percent: proposal.drift,
  applied: applied !== undefined,
});
