import type { AgentLLM, AgentLLMConfig } from '@agentllm/client';

type Parameters = Partial<Pick<AgentLLMConfig, 'temperature' | 'max_tokens'>>;
type DeskConfig = Parameters & { readonly model: string; readonly fallback: string };

/** The model, the fallback and the parameters of each agent. */
const CONFIGS: Readonly<Record<string, DeskConfig>> = {
  market_analyst: { model: 'openai/gpt-5.4-mini', fallback: 'deepseek/deepseek-v4-flash' },
  social_analyst: { model: 'grok/grok-4.3', fallback: 'openai/gpt-5.4-mini', temperature: 0.5 },
  news_analyst: { model: 'claude/claude-haiku-4-5', fallback: 'openai/gpt-5.4-mini', temperature: 0.2 },
  fundamentals_analyst: { model: 'deepseek/deepseek-v4-pro', fallback: 'claude/claude-sonnet-5-5' },
  bull_researcher: { model: 'openai/gpt-5.2', fallback: 'claude/claude-sonnet-5-5' },
  bear_researcher: { model: 'claude/claude-sonnet-5-5', fallback: 'openai/gpt-5.2' },
  research_manager: { model: 'claude/claude-opus-5-5', fallback: 'openai/gpt-6.1-sol' },
  // The first model rejects a temperature, so it is left out; the receipts say so.
  trader: { model: 'openai/gpt-6.1-sol', fallback: 'claude/claude-opus-5-5', temperature: 0.3 },
  risky_analyst: { model: 'deepseek/deepseek-v4-flash', fallback: 'grok/grok-4.3' },
  safe_analyst: { model: 'deepseek/deepseek-v4-flash', fallback: 'claude/claude-haiku-4-5' },
  neutral_analyst: { model: 'deepseek/deepseek-v4-flash', fallback: 'openai/gpt-5.4-mini' },
  risk_manager: { model: 'claude/claude-opus-5-5', fallback: 'openai/gpt-6.1-sol' },
};
const MAX_TOKENS = 2000;
/** Every field that the desk sets. Fields without a value are cleared. */
const FIELDS = ['provider', 'model_name', 'fallback_provider', 'fallback_model', 'temperature', 'max_tokens'];
const REASON = 'trading desk example';
/** Each write is complete when the running agents have applied it. */
const WRITE = { reason: REASON, wait_for_adoption: { timeout: { seconds: 10n, nanos: 0 } } };

export const AGENTS = Object.keys(CONFIGS);

/** Gives each agent its own config. */
export async function configure(client: AgentLLM, agents: readonly string[] = AGENTS): Promise<void> {
  for (const [name, { model, fallback, ...parameters }] of Object.entries(CONFIGS)) {
    if (!agents.includes(name)) continue;
    const [provider, model_name] = split(model);
    const [fallback_provider, fallback_model] = split(fallback);
    const config = { provider, model_name, fallback_provider, fallback_model, max_tokens: MAX_TOKENS, ...parameters };
    await client.configs.upsertPrimaryConfig({ agent: { name }, config, update_mask: FIELDS, ...WRITE });
  }
}

/** Remembers the configs of the agents. The returned function restores them. */
export async function remember(client: AgentLLM): Promise<() => Promise<void>> {
  const before = new Map(await primaryConfigs(client));
  return async () => {
    for (const [name, config] of await primaryConfigs(client)) {
      const earlier = before.get(name);
      if (!config || config.revision === earlier?.revision) continue;
      if (!earlier) await client.configs.deleteConfig({ id: config.id, reason: REASON });
      else await client.configs.rollbackConfig({ id: earlier.id, to_revision: earlier.revision, reason: REASON });
    }
  };
}

async function primaryConfigs(client: AgentLLM): Promise<(readonly [agent: string, AgentLLMConfig | undefined])[]> {
  const { results } = await client.configs.batchGetPrimaryConfigs({ agents: AGENTS.map((name) => ({ name })) });
  return results.map(({ agent_name, config }) => [agent_name, config]);
}

/** Changes the model of an agent. Resolves with the revision, when the running agents have applied it. */
export async function changeModel(client: AgentLLM, name: string, model: string): Promise<bigint> {
  const [provider, model_name] = split(model);
  const { revision } = await client.configs.upsertPrimaryConfig({
    agent: { name },
    config: { provider, model_name },
    ...WRITE,
  });
  return revision;
}

const split = (model: string): [provider: string, name: string] => {
  const [provider = '', ...name] = model.split('/');
  return [provider, name.join('/')];
};
