-- Health of Agents, AgentSessions and MemoryPolicies for Argo CD, as kstatus reads them: a generation that Tenure has not
-- seen yet is Progressing, Stalled is Degraded, Ready is Healthy, all else is Progressing.
local health = { status = "Progressing", message = "Tenure has not seen this generation yet" }
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
local by_type = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  by_type[condition.type] = condition
end
local ready, stalled, reconciling = by_type["Ready"], by_type["Stalled"], by_type["Reconciling"]
if ready == nil then
  return health
end
health.message = ready.reason .. ": " .. (ready.message or "")
if stalled ~= nil and stalled.status == "True" then
  health.status = "Degraded"
elseif ready.status == "True" and not (reconciling ~= nil and reconciling.status == "True") then
  health.status = "Healthy"
end
return health
