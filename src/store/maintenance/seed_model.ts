import type { SeedModel } from '../../../seeds/model.js';
import { modelProblem, providerProblem } from '../../domain/config.js';
import type { State } from '../../domain/state.js';
import { printable } from '../../domain/text.js';
import { StartError } from '../../errors.js';

/** The model that a seed gives to new agents and configs, as it was written. */
export interface WrittenModel {
  /** `provider/model`. */
  readonly text: string;
  /** The option or setting that it comes from, for errors. */
  readonly from: '--model' | 'SEED_MODEL';
}

/** The provider and the model in `provider/model`; undefined for another form. Names of models may contain slashes. */
export function splitModel(text: string): SeedModel | undefined {
  const at = text.indexOf('/');
  return at < 1 || at === text.length - 1 ? undefined : { provider: text.slice(0, at), name: text.slice(at + 1) };
}

/** Finds the model of a seed in the catalogue. Throws a StartError that names the commands that add or allow it. */
export function findSeedModel(state: State, { text, from }: WrittenModel): SeedModel {
  const written = splitModel(text);
  if (!written) throw new StartError(`${from} must be provider/model, such as openai/gpt-5.4`);
  const problem =
    providerProblem(state, written.provider) ?? modelProblem(state, written.provider, written.name, STRICT);
  const provider = state.provider(written.provider);
  if (provider && !problem) return { provider: provider.name, name: written.name };
  const shown = `${from} ${printable(text, 150)}: ${problem}`;
  throw new StartError([shown, ...(provider?.enabled ? remedies(provider.name, written.name, from) : [])].join('\n'));
}
const STRICT = { allowUnknownModel: false };

function remedies(provider: string, name: string, from: WrittenModel['from']): string[] {
  const lines = [
    `  agentllm models create ${printable(`${provider}/${name}`, 150)} adds it to the catalogue`,
    `  agentllm providers update ${provider} --allow-unknown-models allows every model of ${provider}`,
  ];
  return from === 'SEED_MODEL' ? [...lines, '  Both need a running service: start it without SEED_MODEL first'] : lines;
}
