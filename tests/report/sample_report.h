// Records of a whole run as the stages write them, made up: a vision-language model with solo runs, another
// rounding, a verified plan and evaluations that differ.
#pragma once

#include <cmath>
#include <limits>
#include <string>

#include "records/groups.h"
#include "records/sample_records.h"
#include "report/report.h"

namespace nibble::testing {

/// A number in [0, 1) that depends on `i` alone.
inline double noise(uint64_t i) {
  i = (i + 1) * 0x9e3779b97f4a7c15ull;
  i = (i ^ i >> 31) * 0xbf58476d1ce4e5b9ull;
  return static_cast<double>((i ^ i >> 29) >> 11) * 0x1p-53;
}

/// An inventory of `blocks` vision and `blocks` text blocks with a projector of two linears.
inline records::Inventory report_inventory(int64_t blocks) {
  using records::Part, records::Role;
  records::Inventory out;
  out.family = "qwen2_vl";
  out.model = "models/sample";
  out.parameters = 12'345'678;
  out.other_bytes = 1'000'000;
  const auto add = [&](const std::string& name, const std::string& group, Part part, Role role, int64_t depth,
                       int64_t rows, int64_t columns) {
    out.linears.push_back(sample_linear(name, group, part, role, rows, columns));
    out.linears.back().depth = depth;
  };
  for (int64_t i = 0; i < blocks; ++i) {
    const std::string block = "visual.blocks." + std::to_string(i);
    add(block + ".attn.qkv", block + ".attn.qkv", Part::vision, Role::qkv, i, 384, 128);
    add(block + ".attn.proj", block + ".attn.proj", Part::vision, Role::attention_out, i, 128, 128);
    add(block + ".mlp.fc1", block + ".mlp.fc1", Part::vision, Role::fc1, i, 512, 128);
    add(block + ".mlp.fc2", block + ".mlp.fc2", Part::vision, Role::fc2, i, 128, 512);
  }
  for (const char* name : {"visual.merger.mlp.0", "visual.merger.mlp.2"})
    add(name, name, Part::projector, Role::projector, 0, 512, 512);
  for (int64_t i = 0; i < blocks; ++i) {
    const std::string attention = "model.layers." + std::to_string(i) + ".self_attn.";
    const std::string mlp = "model.layers." + std::to_string(i) + ".mlp.";
    add(attention + "q_proj", attention + "qkv", Part::text, Role::q, i, 192, 192);
    add(attention + "k_proj", attention + "qkv", Part::text, Role::k, i, 64, 192);
    add(attention + "v_proj", attention + "qkv", Part::text, Role::v, i, 64, 192);
    add(attention + "o_proj", attention + "o_proj", Part::text, Role::attention_out, i, 192, 192);
    add(mlp + "gate_proj", mlp + "gate_up", Part::text, Role::gate, i, 512, 192);
    add(mlp + "up_proj", mlp + "gate_up", Part::text, Role::up, i, 512, 192);
    add(mlp + "down_proj", mlp + "down_proj", Part::text, Role::down, i, 192, 512);
  }
  return out;
}

/// Errors with a few large ones, one of 0 and one that is infinite; every group run alone in both roundings.
inline records::Measurements report_measurements(int64_t blocks) {
  using records::Modality, records::Part;
  records::Measurements m;
  m.inventory = report_inventory(blocks);
  m.data = {"pictures/calibration/samples.jsonl", "texts/calibration.jsonl"};
  m.samples = 6;
  m.rows = {40'960, 12'340};
  m.window = 2048;
  m.compute = "f32";
  m.rounding = {"feedback", {0.03, 0.2}, 24, 0.5};
  m.effort = "full";
  for (size_t i = 0; i < m.inventory.linears.size(); ++i) {
    const records::LinearRecord& linear = m.inventory.linears[i];
    records::LinearErrors& errors = m.errors.emplace_back();
    errors.name = linear.name;
    errors.weight = 0.092 + 0.004 * noise(i);
    errors.largest_block = 2 * errors.weight;
    const bool bad = i % 17 == 3;
    const auto error = [&](uint64_t seed) {
      const double relative = (bad ? 0.6 : 0.05) * (0.5 + noise(seed));
      return records::ActivationError{4096, 1e6 * relative * relative, 1e6};
    };
    errors.activation[0] = error(1000 + i);
    if (linear.part == Part::text) errors.activation[1] = error(2000 + i);
    errors.rounded = records::RoundedErrors{linear.bytes4, errors.weight * 1.08, errors.activation};
    for (size_t k = 0; k < 2; ++k) errors.rounded->activation[k].noise *= 0.3 + 0.6 * noise(3000 + 2 * i + k);
  }
  m.errors[1].activation[0].noise = 0;
  m.errors[5].activation[0].signal = 0;
  for (int i = 0; i < 6; ++i)
    m.inputs.push_back({"sample " + std::to_string(i), i < 4 ? Modality::vision : Modality::text, 10 + i});
  const auto groups = group_linears(m.inventory, m.fuse);
  for (size_t g = 0; g < groups.size(); ++g)
    for (const char* rounding : {"plain", "feedback"}) {
      records::SoloRun& run = m.solo.emplace_back();
      run.group = groups[g].name;
      run.rounding = rounding;
      const double size = (g % 11 == 3 ? 0.05 : 0.0004) * (run.rounding == "plain" ? 1 : 0.4);
      for (size_t i = 0; i < m.inputs.size(); ++i)
        run.kl.push_back(g == 7 ? 0 : size * (0.2 + noise(4000 + 10 * g + i)));
    }
  return m;
}

/// A plan of these measurements that was verified, repaired and verified again.
inline records::Plan report_plan(const records::Measurements& m) {
  records::Plan plan;
  plan.family = m.inventory.family;
  plan.model = m.inventory.model;
  plan.policy = "dynamic";
  plan.budget = "20%";
  plan.bytes_all4 = m.inventory.bytes_all4();
  plan.bytes_all16 = m.inventory.bytes_all16();
  plan.budget_bytes = plan.bytes_all4 * 6 / 5;
  plan.rounding = m.rounding;
  plan.data = m.data;
  plan.window = m.window;
  plan.compute = m.compute;
  plan.bytes = plan.bytes_all4;
  for (size_t i = 0; i < m.errors.size(); ++i) {
    records::Decision& decision = plan.decisions.emplace_back();
    decision.name = m.errors[i].name;
    decision.keep = i % 17 == 3;
    decision.score = decision.keep ? 0.5 + noise(i) : 0.01;
    decision.reason =
        decision.keep ? "KL 0.0123 of its group alone, rank " + std::to_string(i / 17 + 1) + " of 60 groups"
                      : "KL 0.0004 of its group alone";
    if (!decision.keep && i % 2 == 0) decision.rounding = "feedback";
    if (decision.keep) plan.bytes += m.inventory.linears[i].bytes16 - m.inventory.linears[i].bytes4;
  }
  plan.predicted = {{0.012, 0.004}};
  plan.verification = records::Verification{.data = {"pictures/evaluation/samples.jsonl"},
                                            .inputs = {32, 8},
                                            .runs = {{"dynamic",
                                                      plan.bytes,
                                                      12,
                                                      {0.012, 0.004},
                                                      {{{0.024, 0.013, 0.04}, {0.006, 0.003, 0.009}}},
                                                      {{0.013, 0.005}},
                                                      {{0.008, 0.003}}},
                                                     {"activation error",
                                                      plan.bytes - 90'000,
                                                      11,
                                                      {0.03, 0.01},
                                                      {{{0.05, 0.03, 0.08}, {0.009, 0.006, 0.02}}},
                                                      {{0.04, 0.009}},
                                                      {{0.02, 0.006}}},
                                                     {"repaired 1",
                                                      plan.bytes - 1000,
                                                      12,
                                                      {0.014, 0.0045},
                                                      {{{0.013, 0.008, 0.02}, {0.004, 0.002, 0.007}}},
                                                      {{0.0142, 0.0046}},
                                                      {{0.006, 0.002}}}},
                                            .chosen = 2};
  for (int i = 0; i <= 40; ++i) {
    const double share = i / 40.0;
    const double left = std::pow(1 - share, 2) * std::exp(-6 * share);
    plan.curve.push_back(
        {plan.bytes_all4 +
             static_cast<int64_t>(share * static_cast<double>(plan.bytes_all16 - plan.bytes_all4)),
         {0.3 * left, 0.08 * left}});
  }
  return plan;
}

/// The 16-bit model, all 4 bit and the plan, on the same pictures.
inline std::vector<records::ComparedModel> report_models(const records::Plan& plan) {
  std::vector<records::ComparedModel> models(3);
  const char* names[] = {"16 bit", "4 bit", "dynamic 20%"};
  const char* said[] = {
      "The image shows a green train with one car traveling left on tracks past a city at night.",
      "The image shows a red train with two cars traveling right on tracks past a forest at night.",
      "The image shows a green train with one car traveling left on tracks past a town at night."};
  const int64_t bytes[] = {plan.bytes_all16, plan.bytes_all4, plan.bytes};
  for (size_t k = 0; k < 3; ++k) {
    records::Evaluation& e = models[k].evaluation.emplace();
    models[k].description = names[k];
    models[k].result = said[k];
    models[k].unchanged = k == 0 ? "20 of 20" : k == 1 ? "2 of 20" : "15 of 20";
    e.model = names[k];
    e.against = k == 0 ? "" : names[0];
    e.compute = "f32";
    models[k].bytes = e.tensor_bytes = bytes[k];
    for (int i = 0; i < 20; ++i) {
      records::SampleResult& sample = e.samples.emplace_back();
      sample.id = "pictures/evaluation/samples.jsonl:" + std::to_string(i + 1);
      sample.modality = records::Modality::vision;
      sample.prompt = "Describe this image.";
      sample.expected = said[0];
      const bool other = k == 1 ? i % 10 != 0 : k == 2 && i % 4 == 1;
      sample.output = other ? said[k] : said[0];
      sample.exact = !other;
      sample.positions = 18;
      sample.loss = 0.1 + 0.01 * i;
      sample.kl = other ? 0.1 + 0.01 * i : k == 0 ? 0 : 0.001;
      sample.agreement = other ? 0.8 : 1;
    }
    records::summarize(e);
  }
  return models;
}

inline report::Records report_records(int64_t blocks = 8) {
  report::Records out;
  out.version = "0.1.0";
  out.measurements = report_measurements(blocks);
  out.plan = report_plan(*out.measurements);
  out.models = report_models(*out.plan);
  return out;
}

}  // namespace nibble::testing
